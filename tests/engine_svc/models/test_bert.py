"""The packed encoder against transformers' own, on small random checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertForMaskedLM, BertForSequenceClassification, PreTrainedModel

from engine_svc.batch import PackedBatch
from engine_svc.models.architectures import load_encoder
from engine_svc.models.packed_tokens import PackedTokens
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError
from tests.checkpoints import POSITIONS, write_bert
from tests.engine_svc.models.packed import ALL_LENGTHS, random_batch, split

CPU = torch.device("cpu")


@torch.inference_mode()
def packed_forward(folder: Path, batch: PackedBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    encoder = load_encoder(Checkpoint.read(folder), dtype=dtype, device=CPU)
    return encoder(PackedTokens.of(batch, head_dim=encoder.head_dim, device=CPU, dtype=dtype))[: batch.tokens].float()


@torch.inference_mode()
def one_by_one(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Each sequence alone, so that nothing is padded there either."""
    hidden = [
        model.base_model(input_ids=ids[None], token_type_ids=types[None]).last_hidden_state[0]
        for ids, types in zip(split(batch.token_ids, batch), split(batch.type_ids, batch), strict=True)
    ]
    return torch.cat(hidden)


def assert_same_direction(ours: Tensor, theirs: Tensor, least: float) -> None:
    assert torch.cosine_similarity(ours, theirs).min() > least


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_hidden_states_equal_transformers(tmp_path: Path, activation: str) -> None:
    model = write_bert(tmp_path, hidden_act=activation)
    batch = random_batch(ALL_LENGTHS, with_types=True)
    torch.testing.assert_close(packed_forward(tmp_path, batch), one_by_one(model, batch), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_stay_close_to_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    model = write_bert(tmp_path)
    batch = random_batch(ALL_LENGTHS)
    assert_same_direction(packed_forward(tmp_path, batch, dtype), one_by_one(model, batch), 0.998)


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 0.999999), (torch.bfloat16, 0.9999), (torch.float16, 0.9999)]
)
@pytest.mark.parametrize("length", [1, 2, 31, POSITIONS])
def test_sequence_alone_equals_itself_in_a_batch(tmp_path: Path, length: int, dtype: torch.dtype, least: float) -> None:
    write_bert(tmp_path)
    batch = random_batch([length, *ALL_LENGTHS])
    alone = packed_forward(tmp_path, PackedBatch.of(batch.sequences[:1]), dtype)
    assert_same_direction(packed_forward(tmp_path, batch, dtype)[:length], alone, least)


@pytest.mark.parametrize("model_class", [BertForMaskedLM, BertForSequenceClassification])
def test_encoder_is_found_below_a_head(tmp_path: Path, model_class: type[PreTrainedModel]) -> None:
    model = write_bert(tmp_path, model_class)
    batch = random_batch([3, 9])
    torch.testing.assert_close(packed_forward(tmp_path, batch), one_by_one(model, batch), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model type mamba is not supported"),
        ({"hidden_act": "mish"}, "hidden_act mish is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type relative_key is not supported"),
        ({"num_attention_heads": 5}, "hidden_size is not a multiple"),
        ({"num_hidden_layers": None}, "has no num_hidden_layers"),
        ({"num_hidden_layers": 3}, "no tensor encoder.layer.2"),
        ({"intermediate_size": 50}, r"has shape \[48, 32\], expected \[50, 32\]"),
        ({"vocab_size": 98}, r"word_embeddings.weight has shape \[97, 32\], expected \[98, 32\]"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
    ],
)
def test_config_that_does_not_fit_is_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_bert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(Checkpoint.read(tmp_path), dtype=torch.float32, device=CPU)
    assert str(tmp_path) in str(caught.value)
