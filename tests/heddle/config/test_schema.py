"""The JSON schema, which editors use to check and complete a config file."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from heddle.config.schema import TrussConfig
from tests.heddle.config.configs import BUILD, EXAMPLES, RUNTIME, SEED, SMALLEST, config_with

SCHEMA: dict[str, Any] = TrussConfig.model_json_schema()
COMPLETE = [*EXAMPLES.glob("*.yaml"), *(path for path in SEED.glob("*.yaml") if "base_model" in path.read_text())]

REPOSITORY = f"{BUILD}.checkpoint_repository"


def is_valid(values: object) -> bool:
    return jsonschema_rs.validator_for(SCHEMA).is_valid(values)


def test_it_is_a_valid_json_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_it_accepts_the_seeds_configurations(path: Path) -> None:
    assert is_valid(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "fields",
    [
        {"environment_variables": {"AUTO_TRUNCATE": True, "MAX_BATCH_TOKENS": 4096, "POOLING": "cls"}},
        {"resources.accelerator": "L4:2"},
        {f"{BUILD}.quantization_config": {"calib_size": 64}},
        {f"{BUILD}.quantization_configuration": {"calib_size": 64}},
        {f"{RUNTIME}.webserver_default_route": None},
        {"secrets": {"hf_access_token": None}},
        {"model_metadata": {"tags": ["a"]}, "unknown": 1},
    ],
    ids=str,
)
def test_it_accepts_what_heddle_accepts(fields: dict[str, Any]) -> None:
    assert is_valid(SMALLEST)
    assert is_valid(config_with(fields))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (f"{BUILD}.base_model", "decoder"),
        (f"{BUILD}.max_num_tokens", 100),
        (f"{BUILD}.quantization_type", "fp16"),
        (f"{BUILD}.quantization_config", {"calib_size": 65}),
        (f"{BUILD}.quantization_configuration", {"calib_size": 65}),
        (f"{REPOSITORY}.source", "GCP"),
        (f"{REPOSITORY}.repo", ""),
        (f"{RUNTIME}.webserver_default_route", "/embed"),
        ("resources.accelerator", "l4"),
        ("resources.accelerator", "L4:0"),
        ("environment_variables", {"A": None}),
    ],
)
def test_it_refuses_what_heddle_refuses(place: str, value: object) -> None:
    assert not is_valid(config_with({place: value}))


def test_fields_are_described_for_completion() -> None:
    for name in ("Build", "CheckpointRepository", "QuantizationConfiguration"):
        fields = SCHEMA["$defs"][name]["properties"]
        described = [field for field in fields.values() if "description" in field]
        assert len(described) >= 3, name
    tokens = SCHEMA["$defs"]["Build"]["properties"]["max_num_tokens"]
    assert tokens["anyOf"][0] == {"type": "integer", "minimum": 64, "maximum": 131_072, "multipleOf": 64}
    assert tokens["description"].startswith("Most tokens of one forward pass")


def test_a_field_without_effect_says_so() -> None:
    assert SCHEMA["properties"]["python_version"]["description"] == (
        "Has no effect on Heddle: Heddle builds no container."
    )
    assert "Has no effect" in SCHEMA["$defs"]["Build"]["properties"]["max_seq_len"]["description"]
