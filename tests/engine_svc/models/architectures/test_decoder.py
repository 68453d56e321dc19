"""Decoders' configs and weights: what a layer sees, and the errors for a checkpoint that does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Model,
    Gemma3TextModel,
    LlamaModel,
    MistralModel,
    PreTrainedModel,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    Qwen3Model,
)

from engine_svc.models.packed_tokens import PackedTokens
from heddle.checkpoint.json_files import CheckpointError
from tests.engine_svc.models.cases import load_model, save
from tests.engine_svc.models.cases_of.decoders import small
from tests.engine_svc.models.cases_of.gemmas import GEMMA2, GEMMA3
from tests.engine_svc.models.hub_layout import change_config, rename_tensors
from tests.engine_svc.models.packed import random_batch

WINDOW = tuple[int | None, int | None]
CAUSAL, BOTH = (None, 0), (None, None)


def read_windows(folder: Path) -> list[WINDOW]:
    patterns = [layer.attention.pattern for layer in load_model(folder).transformer.layers]
    return [(pattern.window_left, pattern.window_right) for pattern in patterns]


@pytest.mark.parametrize(
    ("model_class", "config", "windows"),
    [
        (LlamaModel, {}, [CAUSAL, CAUSAL]),
        (LlamaModel, {"is_causal": False}, [BOTH, BOTH]),
        (MistralModel, {"sliding_window": None}, [CAUSAL, CAUSAL]),
        (MistralModel, {"sliding_window": 8}, [(7, 0), (7, 0)]),
        (MistralModel, {"sliding_window": 8, "is_causal": False}, [(8, 8), (8, 8)]),
        (Qwen2Model, {"sliding_window": 8, "use_sliding_window": False, "max_window_layers": 1}, [CAUSAL, CAUSAL]),
        (Qwen3Model, {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}, [CAUSAL, (7, 0)]),
        (Gemma2Model, GEMMA2, [(7, 0), CAUSAL, (7, 0)]),
        (Gemma3TextModel, GEMMA3, [(7, 0), CAUSAL, (7, 0)]),
        (Gemma3TextModel, {**GEMMA3, "use_bidirectional_attention": True}, [(4, 4), BOTH, (4, 4)]),
    ],
)
@pytest.mark.parametrize("has_layer_types", [True, False])
def test_layers_see_what_the_config_says(
    tmp_path: Path,
    model_class: type[PreTrainedModel],
    config: dict[str, Any],
    windows: list[WINDOW],
    *,
    has_layer_types: bool,
) -> None:
    save(small(model_class, **config), tmp_path)
    if not has_layer_types:
        change_config(tmp_path, without=("layer_types",), sliding_window_pattern=2)
    assert read_windows(tmp_path) == windows


def test_gemma_3_without_a_pattern_sees_all_in_each_sixth_layer(tmp_path: Path) -> None:
    save(small(Gemma3TextModel, num_hidden_layers=7, head_dim=16, sliding_window=8), tmp_path)
    change_config(tmp_path, without=("layer_types",))
    assert read_windows(tmp_path) == [(7, 0)] * 5 + [CAUSAL, (7, 0)]


def test_mistral_without_a_stated_window_has_the_default(tmp_path: Path) -> None:
    save(small(MistralModel), tmp_path)
    change_config(tmp_path, without=("sliding_window",))
    assert read_windows(tmp_path) == [(4095, 0)] * 2


def test_rope_of_gemma_3_that_is_not_by_layer_type_is_refused(tmp_path: Path) -> None:
    save(small(Gemma3TextModel, **GEMMA3), tmp_path)
    change_config(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    with pytest.raises(CheckpointError, match=f"{tmp_path}/config.json: rope_parameters are not by layer type"):
        load_model(tmp_path)


def test_layers_of_one_type_share_their_rotations(tmp_path: Path) -> None:
    save(small(Gemma3TextModel, **GEMMA3), tmp_path)
    first, second, third = (layer.attention.rotary for layer in load_model(tmp_path).transformer.layers)
    assert first is third
    assert first is not second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types is not a list of one type for each layer"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer type chunked_attention is not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": None}, "sliding_window is missing"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 heads of keys and values"),
        ({"hidden_act": "mish"}, "hidden_act mish is not supported"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rotary scaling longrope is not supported"),
        ({"head_dim": 32}, r"q_proj.weight has shape \[64, 32\], expected \[128, 32\]"),
        ({"attention_bias": True}, "no tensor layers.0.self_attn.q_proj.bias"),
        ({"model_type": "qwen2"}, "no tensor layers.0.self_attn.q_proj.bias"),
    ],
)
def test_config_that_does_not_fit_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save(small(Qwen3Model), tmp_path)
    change_config(tmp_path, without=() if "layer_types" in changes else ("layer_types",), **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pooling_of_a_nemotron_reranker_must_be_known(tmp_path: Path) -> None:
    save(small(Qwen2ForSequenceClassification, num_labels=1), tmp_path)
    rename_tensors(tmp_path, lambda name: None if name.endswith("_proj.bias") else name)
    change_config(tmp_path, model_type="llama_bidirec", pooling="weighted_avg")
    with pytest.raises(CheckpointError, match="pooling weighted_avg is not supported"):
        load_model(tmp_path)


def test_score_may_have_a_bias(tmp_path: Path) -> None:
    save(small(Qwen2ForSequenceClassification, num_labels=2), tmp_path)
    hidden, batch = torch.randn(3, 32), random_batch([3])
    tokens = PackedTokens.of(batch, device=hidden.device, dtype=hidden.dtype)
    without = load_model(tmp_path).head(hidden, tokens, batch).flat.numpy()
    rename_tensors(tmp_path, str, add={"score.bias": torch.tensor([1.0, 2.0])})
    with_bias = load_model(tmp_path).head(hidden, tokens, batch).flat.numpy()
    assert (with_bias - without).round(4).tolist() == [1.0, 2.0]


def test_language_model_s_head_is_passed_over(tmp_path: Path) -> None:
    save(small(Qwen3Model), tmp_path)
    rename_tensors(tmp_path, str, add={"lm_head.weight": torch.ones(97, 32)})
    load_model(tmp_path)
