"""Rerankers that are published as bare language models, over HTTP, against the code of their model cards."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, processors
from transformers import GemmaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2ForCausalLM, Qwen3ForCausalLM

from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_json
from tests.engine_svc.models.cases_of.decoders import small
from tests.kinds import http_of
from tests.small_tokenizers import byte_level

QUERY = "What is a loom?"
DOCUMENTS = ["A loom weaves cloth.", "It is raining.", "The heddle guides each thread to its place."]

Scores = Callable[[PreTrainedModel, Any], Sequence[float]]


@torch.inference_mode()
def last_logits(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return logits[:, -1]


def qwen3_scores(model: PreTrainedModel, tokenizer: Any) -> list[float]:
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    task = "Given a web search query, retrieve relevant passages that answer the query"
    no, yes = tokenizer.convert_tokens_to_ids(["no", "yes"])
    scores = []
    for document in DOCUMENTS:
        pieces = (prefix, f"<Instruct>: {task}\n<Query>: {QUERY}\n<Document>: {document}", suffix)
        ids = [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)]
        logits = last_logits(model, ids)
        both = torch.stack([logits[:, no], logits[:, yes]], dim=1)
        scores.append(torch.nn.functional.log_softmax(both, dim=1)[0, 1].exp().item())
    return scores


def mxbai_scores(model: PreTrainedModel, tokenizer: Any) -> list[float]:
    zero, one = tokenizer.convert_tokens_to_ids(["0", "1"])
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    head = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    scores = []
    for document in DOCUMENTS:
        pieces = [head, f"query: {QUERY}", "\n", f"document: {document}", "\n", task]
        pieces.append("<|im_end|>\n<|im_start|>assistant\n")
        ids = [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)]
        logits = last_logits(model, ids)[0]
        scores.append(torch.sigmoid(logits[one] - logits[zero]).item())
    return scores


def gemma_scores(model: PreTrainedModel, tokenizer: Any) -> list[float]:
    task = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )
    yes = tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    separator, prompt = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("\n", task))
    scores = []
    for document in DOCUMENTS:
        query = tokenizer(f"A: {QUERY}", add_special_tokens=False)["input_ids"]
        passage = tokenizer(f"B: {document}", add_special_tokens=False)["input_ids"]
        ids = [tokenizer.bos_token_id, *query, *separator, *passage, *separator, *prompt]
        scores.append(torch.sigmoid(last_logits(model, ids)[0, yes]).item())
    return scores


def tokenizer_of(words: Sequence[str], *, begins: bool) -> Tokenizer:
    """A byte-level tokenizer with these words as tokens. Gemma's adds a token before each text, Qwen's does not."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    begin = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = begin if begins else processors.ByteLevel(trim_offsets=False)
    return tokenizer


@pytest.mark.parametrize(
    ("model_class", "name", "words", "scores_of"),
    [
        (Qwen3ForCausalLM, "Qwen/Qwen3-Reranker-0.6B", ("yes", "no"), qwen3_scores),
        (Qwen2ForCausalLM, "mixedbread-ai/mxbai-rerank-base-v2", (), mxbai_scores),
        (GemmaForCausalLM, "BAAI/bge-reranker-v2-gemma", ("Yes",), gemma_scores),
    ],
)
async def test_scores_are_those_of_the_model_card(
    tmp_path: Path, model_class: type[PreTrainedModel], name: str, words: Sequence[str], scores_of: Scores
) -> None:
    folder = tmp_path / name
    library = tokenizer_of(words, begins=model_class is GemmaForCausalLM)
    model = small(model_class, vocab_size=library.get_vocab_size(), max_position_embeddings=1024)
    model.save_pretrained(folder)
    library.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": 1024})
    reference: Any = PreTrainedTokenizerFast
    expected = scores_of(model, reference(tokenizer_object=library, bos_token="<s>"))
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    async with http_of(tmp_path, folder, backend) as http:
        response = await http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS})
        assert response.status_code == 200, response.text
        scores = {entry["index"]: entry["score"] for entry in response.json()}
    np.testing.assert_allclose([scores[index] for index in range(len(DOCUMENTS))], expected, atol=1e-5)
    assert len({round(score, 3) for score in expected}) == len(DOCUMENTS)
