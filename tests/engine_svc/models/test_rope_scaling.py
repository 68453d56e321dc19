"""Rotary parameters that cannot be: one sentence that names the file and the field. What the others compute is in the
parity cases."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import rope_parameters, rotary_of
from heddle.checkpoint_files import CheckpointError

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
        rotary_of(config, rope_parameters(config), 8, torch.device("cpu"))


def test_null_is_as_good_as_nothing() -> None:
    plain, stated = ModelConfig({}, PATH), ModelConfig({"rope_parameters": {"rope_type": None, "factor": None}}, PATH)
    expected, found = (rotary_of(config, rope_parameters(config), 8, torch.device("cpu")) for config in (plain, stated))
    torch.testing.assert_close(found.frequencies, expected.frequencies)
