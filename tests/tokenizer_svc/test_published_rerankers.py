"""Rerankers that are published as bare language models, over HTTP, against the code of their model cards."""

from collections.abc import Sequence
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
from tests.tokenizer_svc.rerank_references import REFERENCES

QUERY = "What is a loom?"
DOCUMENTS = ["A loom weaves cloth.", "It is raining.", "The heddle guides each thread to its place."]

QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
GEMMA_INSTRUCTION = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)


@torch.inference_mode()
def score_of_card(
    model: PreTrainedModel, tokenizer: Any, document: str, *, reference: str, instruction: str, answers: str
) -> float:
    """The probability of the first answer, in proportion to that of the second if there is one."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    ids = [token for part in REFERENCES[reference](encode, QUERY, document, instruction) for token in part]
    logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    yes, *no = (logits[tokenizer.convert_tokens_to_ids(answer)] for answer in answers.split())
    return torch.sigmoid(yes - no[0] if no else yes).item()


def tokenizer_of(words: Sequence[str], *, begins: bool) -> Tokenizer:
    """A byte-level tokenizer with these words as tokens. Gemma's adds a token before each text, Qwen's does not."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    begin = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = begin if begins else processors.ByteLevel(trim_offsets=False)
    return tokenizer


@pytest.mark.parametrize(
    ("model_class", "name", "words", "reference", "instruction", "answers"),
    [
        (Qwen3ForCausalLM, "Qwen/Qwen3-Reranker-0.6B", ("yes", "no"), "qwen3-reranker", QWEN3_INSTRUCTION, "yes no"),
        (Qwen2ForCausalLM, "mixedbread-ai/mxbai-rerank-base-v2", (), "mxbai-rerank-v2", "", "1 0"),
        (GemmaForCausalLM, "BAAI/bge-reranker-v2-gemma", ("Yes",), "bge-reranker-gemma", GEMMA_INSTRUCTION, "Yes"),
    ],
)
async def test_scores_are_those_of_the_model_card(
    tmp_path: Path,
    *,
    model_class: type[PreTrainedModel],
    name: str,
    words: Sequence[str],
    reference: str,
    instruction: str,
    answers: str,
) -> None:
    folder = tmp_path / name
    library = tokenizer_of(words, begins=model_class is GemmaForCausalLM)
    model = small(model_class, vocab_size=library.get_vocab_size(), max_position_embeddings=1024)
    model.save_pretrained(folder)
    library.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": 1024})
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(tokenizer_object=library, bos_token="<s>")
    expected = [
        score_of_card(model, tokenizer, document, reference=reference, instruction=instruction, answers=answers)
        for document in DOCUMENTS
    ]
    backend = TorchBackend(Checkpoint.read(folder), dtype="float32", device="cpu")
    async with http_of(tmp_path, folder, backend) as http:
        response = await http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS})
        assert response.status_code == 200, response.text
        scores = {entry["index"]: entry["score"] for entry in response.json()}
    np.testing.assert_allclose([scores[index] for index in range(len(DOCUMENTS))], expected, atol=1e-5)
    assert len({round(score, 3) for score in expected}) == len(DOCUMENTS)
