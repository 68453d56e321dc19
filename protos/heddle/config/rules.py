"""The rules of BEI about what goes together, and what Heddle cannot do yet. Called after the schema has been checked.

Baseten's cards by what they support: https://docs.baseten.co/engines/bei/overview, "Hardware requirements".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from heddle.config.schema import ACCELERATORS, CheckpointRepository, TrussConfig
from heddle.config.translation import HEDDLE_PREFIXES, convert_tei_variable, to_address
from heddle.quantization import NO_QUANT, Quantization
from heddle.remote.addresses import parse_address
from heddle.rpc.settings import ConfigurationError

BUILD = "trt_llm.build"
REPOSITORY = f"{BUILD}.checkpoint_repository"

# For each source: the store of its addresses, and an example.
STORES = {
    "S3": ("s3", "s3://bucket/path"),
    "GCS": ("gcs", "gs://bucket/path"),
    "AZURE": ("azure", "azure://account/container/path"),
    "REMOTE_URL": ("web", "https://host/model.tar.gz"),
}
QUANTIZATIONS = get_args(Quantization)

# The lowest compute capability that BEI runs on at all, and with a quantization.
ENCODER_CAPABILITY = (8, 0)
QUANTIZATION_CAPABILITIES = {"fp8": (8, 9), "fp4": (10, 0)}

# As huggingface_hub checks it, whose import would take long.
HUB_NAME = re.compile(r"(?!.*(--|\.\.))[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?", re.ASCII)


def find_broken_rules(config: TrussConfig) -> list[str]:
    """One line for each mistake."""
    return [
        *check_source(config.trt_llm.build.checkpoint_repository),
        *check_quantization(config),
        *check_card(config),
        *check_variables(config),
    ]


def check_source(repository: CheckpointRepository) -> Iterator[str]:
    if repository.source == "BASETEN_TRAINING":
        yield (
            f"{REPOSITORY}.source BASETEN_TRAINING is only on Baseten: "
            f"download the checkpoint with truss train, and set source: LOCAL"
        )
    if repository.source == "HF" and not HUB_NAME.fullmatch(repository.repo):
        yield (
            f"{REPOSITORY}.repo must be a name on the Hugging Face hub, such as BAAI/bge-m3, not {repository.repo}; "
            f"for a folder on this machine, set source: LOCAL"
        )
    if repository.source in ("LOCAL", *STORES) and repository.revision not in (None, "main"):
        place = "a folder" if repository.source == "LOCAL" else f"source {repository.source}"
        yield f"{REPOSITORY}.revision must be unset for {place}, not {repository.revision}"
    if repository.source in STORES:
        yield from check_address(repository)


def check_address(repository: CheckpointRepository) -> Iterator[str]:
    store, example = STORES[repository.source]
    try:
        address = parse_address(to_address(repository, Path()))
    except ConfigurationError as error:
        yield f"{REPOSITORY}.repo: {error}"
        return
    if address.store != store:
        yield f"{REPOSITORY}.repo must be an address such as {example} for source {repository.source}"


def check_quantization(config: TrussConfig) -> Iterator[str]:
    build = config.trt_llm.build
    place, stated = f"{BUILD}.quantization_type", build.quantization_type
    if stated == NO_QUANT:
        return
    if build.base_model == "encoder_bert":
        yield f"{place} must be no_quant for base_model encoder_bert, which computes in 16 bit, not {stated}"
    elif stated not in QUANTIZATIONS:
        yield f"{place} must be one of {', '.join(QUANTIZATIONS)}, not {stated}, which Heddle does not support"


def check_card(config: TrussConfig) -> Iterator[str]:
    if config.resources.accelerator is None:
        return
    build = config.trt_llm.build
    card = config.resources.accelerator.partition(":")[0]
    needed = QUANTIZATION_CAPABILITIES.get(build.quantization_type[:3])
    if needed and build.base_model == "encoder" and ACCELERATORS[card] < needed:
        place, stated = f"{BUILD}.quantization_type", build.quantization_type
        yield f"{place} {stated} needs one of {', '.join(cards_from(needed))} as resources.accelerator, not {card}"
    if build.base_model == "encoder" and ACCELERATORS[card] < ENCODER_CAPABILITY:
        yield (
            f"{BUILD}.base_model encoder needs one of {', '.join(cards_from(ENCODER_CAPABILITY))} "
            f"as resources.accelerator, not {card}, which serves encoder_bert only"
        )


def cards_from(capability: tuple[int, int]) -> list[str]:
    return [name for name, its_own in ACCELERATORS.items() if its_own >= capability]


def check_variables(config: TrussConfig) -> Iterator[str]:
    if {"DEFAULT_PROMPT", "DEFAULT_PROMPT_NAME"} <= config.environment_variables.keys():
        yield "environment_variables.DEFAULT_PROMPT and DEFAULT_PROMPT_NAME exclude each other"
    for name, text in config.environment_variables.items():
        if name.startswith("HEDDLE_") and not name.startswith(HEDDLE_PREFIXES):
            yield f"environment_variables.{name} must begin with one of {', '.join(HEDDLE_PREFIXES)}"
        try:
            convert_tei_variable(name, text)
        except ValueError as error:
            yield f"environment_variables.{name} {error}"
