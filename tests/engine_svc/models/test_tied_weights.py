"""Word embeddings that are stored under the name of the language model's head: safetensors stores tied tensors once,
and either name may be the one that is kept."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    PreTrainedModel,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import SMALL_BERT
from tests.engine_svc.models.cases import saved
from tests.engine_svc.models.cases_of.decoders import small
from tests.engine_svc.models.hub_layout import change_config, rename_tensors

DISTILBERT = DistilBertConfig(vocab_size=97, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64)
MODELS: list[tuple[PreTrainedModel, str]] = [
    (small(Qwen3ForCausalLM, tie_word_embeddings=True), "lm_head.weight"),
    (BertForMaskedLM(BertConfig(**SMALL_BERT)), "cls.predictions.decoder.weight"),
    (RobertaForMaskedLM(RobertaConfig(**SMALL_BERT)), "lm_head.decoder.weight"),
    (DistilBertForMaskedLM(DISTILBERT), "vocab_projector.weight"),
    (AlbertForMaskedLM(AlbertConfig(**SMALL_BERT, embedding_size=16)), "predictions.decoder.weight"),
    (ElectraForMaskedLM(ElectraConfig(**SMALL_BERT, embedding_size=16)), "generator_lm_head.weight"),
]


def words_of(folder: Path) -> torch.Tensor:
    model = Model.load(Checkpoint.read(folder), dtype=torch.float32, device=torch.device("cpu"))
    return model.transformer.embeddings.words


@pytest.mark.parametrize(("model", "head"), MODELS, ids=lambda value: type(value).__name__)
def test_embeddings_are_those_of_the_head_as_in_transformers(tmp_path: Path, model: PreTrainedModel, head: str) -> None:
    saved(model, tmp_path)
    words = next(
        name for name, _ in model.named_parameters() if name.endswith(("embed_tokens.weight", "word_embeddings.weight"))
    )
    rename_tensors(tmp_path, lambda name: head if name == words else name)
    theirs = type(model).from_pretrained(tmp_path).state_dict()[words]
    assert torch.equal(theirs, model.state_dict()[words])
    assert torch.equal(words_of(tmp_path), theirs)
    change_config(tmp_path, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=f"has no tensor {words.partition('.')[2]}"):
        words_of(tmp_path)
