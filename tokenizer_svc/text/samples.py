"""Tokenizes the sample texts of `heddle build` like requests, so that calibration sees the inputs of serving."""

from collections.abc import Sequence
from dataclasses import replace

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import AUTO
from tokenizer_svc.text.inputs import Input
from tokenizer_svc.text.rerank_prompts import choose_prompt
from tokenizer_svc.text.sequences import TokenSequences
from tokenizer_svc.text.tokenizer import Tokenizer


def tokenize_samples(checkpoint: Checkpoint, texts: Sequence[str], tokens_max: int = 0) -> TokenSequences:
    """Returns a sequence or an error for each text, with the model's default prompt, cut to `tokens_max` (0 = the
    model's limit). For rerankers, each text is the query of the next. Raises CheckpointError if the tokenizer is
    unusable."""
    tokenizer = Tokenizer.load(checkpoint)
    options = replace(tokenizer.options(), tokens_max=tokens_max)
    inputs: Sequence[Input] = texts
    if checkpoint.kind is ModelKind.RERANKER:
        prompt = choose_prompt(checkpoint, tokenizer, AUTO)
        pairs = list(zip(texts, [*texts[1:], *texts[:1]], strict=True))
        inputs = pairs if prompt is None else [prompt.fill(query, document) for query, document in pairs]
    [sequences] = tokenizer.encode([(inputs, options)])
    return sequences
