"""Configs for the tests: the seed's snippets as its documentation prints them, and the smallest that is valid."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.config.loading import ConfigFileError, LoadedConfig, load_config

SEED = Path(__file__).with_name("seed")
# Configs like Baseten's, for models that the seed names without a config.
EXAMPLES = Path(__file__).with_name("examples")

SMALLEST: dict[str, Any] = {
    "trt_llm": {"build": {"base_model": "encoder", "checkpoint_repository": {"repo": "BAAI/bge-m3"}}}
}
BUILD = "trt_llm.build"
RUNTIME = "trt_llm.runtime"


def config_with(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest config, with a value at each dotted path."""
    config = deepcopy(SMALLEST)
    for path, value in fields.items():
        *parents, name = path.split(".")
        section = config
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return config


def load(folder: Path, fields: Mapping[str, Any]) -> LoadedConfig:
    return load_values(folder, config_with(fields))


def load_values(folder: Path, values: object) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return load_config(path)


def find_mistakes(folder: Path, values: object) -> list[str]:
    """Without the file's name, which begins each line."""
    try:
        load_values(folder, values)
    except ConfigFileError as error:
        return [line.removeprefix(f"{folder / 'config.yaml'}: ") for line in str(error).splitlines()]
    return []


def write_minilm_config(folder: Path, **fields: Any) -> Path:
    """Writes a config for the model that comes with Heddle."""
    minilm = {f"{BUILD}.checkpoint_repository.repo": PACKAGED_NAME, f"{BUILD}.base_model": "encoder_bert"}
    return load(folder, {**minilm, **fields}).path
