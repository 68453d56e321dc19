"""Frequencies of rotary positions against transformers', for each form of scaling and each of its settings; and
one-line errors for impossible parameters, which name the file and the field."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rotary import build_rotary, rope_parameters
from heddle.checkpoint.json_files import CheckpointError

HEAD_DIM = 32
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
# Of YaRN.
SETTINGS: list[dict[str, Any]] = [
    {},
    {"factor": None},
    {"factor": 1.0},
    {"factor": 40.0},
    {"original_max_position_embeddings": 300},
    {"attention_factor": 0.7},
    {"attention_factor": 0.7, "mscale": 0.5, "mscale_all_dim": 2.0},
    {"mscale": 0.707, "mscale_all_dim": 1.5},
    {"mscale": 0.707},
    {"mscale_all_dim": 0.707},
    {"beta_fast": 16},
    {"beta_slow": 3},
    {"beta_fast": 8, "beta_slow": 2, "truncate": False},
    {"truncate": False},
    {"truncate": True},
    {"rope_theta": 1e6, "partial_rotary_factor": 0.5},
]


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "linear", "factor": 2.5, "rope_theta": 5e5, "partial_rotary_factor": 0.5},
        LLAMA3,
        {**LLAMA3, "factor": 32.0, "rope_theta": 5e5},
        {**LLAMA3, "low_freq_factor": 2.0, "high_freq_factor": 3.0},
        {**LLAMA3, "original_max_position_embeddings": 64},
        *({**YARN, **settings} for settings in SETTINGS),
    ],
    ids=str,
)
def test_frequencies_and_scale_are_those_of_transformers(parameters: dict[str, Any]) -> None:
    parameters = {"rope_theta": 10_000.0, **parameters}
    theirs = LlamaConfig(
        hidden_size=4 * HEAD_DIM, num_attention_heads=4, max_position_embeddings=4096, rope_parameters=parameters
    )
    frequencies, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](theirs, torch.device("cpu"))
    config = ModelConfig({"max_position_embeddings": 4096, "rope_parameters": parameters}, Path("config.json"))
    rotary = build_rotary(config, rope_parameters(config), HEAD_DIM, torch.device("cpu"))
    torch.testing.assert_close(rotary.frequencies, frequencies, atol=0, rtol=1e-6)
    assert rotary.attention_factor == pytest.approx(scale)


PATH = Path("model/config.json")
LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_parameters": "x"}, "rope_parameters 'x' is not an object"),
        ({"rope_scaling": [2.0]}, r"rope_scaling \[2\.0\] is not an object"),
        ({"rope_theta": "x"}, "rope_theta 'x' is not a number"),
        ({"rope_parameters": {"rope_theta": None}}, "rotary scaling default lacks 'rope_theta'"),
        ({"rope_scaling": {**LINEAR, "factor": "x"}}, "factor 'x' is not a number"),
        ({"rope_scaling": {**LINEAR, "factor": None}}, "rotary scaling linear lacks 'factor'"),
        ({"rope_scaling": {"rope_type": ["linear"]}}, r"rope_type \['linear'\] is not a text"),
        ({"rope_scaling": {"type": 5}}, "type 5 is not a text"),
        ({"partial_rotary_factor": {}, "rope_scaling": {"partial_rotary_factor": {}}}, "partial_rotary_factor {} is"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": True}}, "beta_fast True is not a number"),
        (
            {"rope_theta": 1.0, "max_position_embeddings": 8, "rope_scaling": {"type": "yarn", "factor": 2.0}},
            "rotary scaling yarn cannot have .*division by zero",
        ),
    ],
)
def test_wrong_parameters_are_named(values: dict[str, Any], message: str) -> None:
    config = ModelConfig(values, PATH)
    with pytest.raises(CheckpointError, match=rf"^{PATH}: {message}"):
        build_rotary(config, rope_parameters(config), 8, torch.device("cpu"))


def test_null_is_as_good_as_nothing() -> None:
    plain, stated = ModelConfig({}, PATH), ModelConfig({"rope_parameters": {"rope_type": None, "factor": None}}, PATH)
    expected, found = (
        build_rotary(config, rope_parameters(config), 8, torch.device("cpu")) for config in (plain, stated)
    )
    torch.testing.assert_close(found.frequencies, expected.frequencies)
