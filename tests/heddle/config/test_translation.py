"""What a config becomes: variables of `heddle serve` and its services."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_svc.settings import EngineSettings
from heddle.cli.serve_settings import ServeSettings
from heddle.config.loading import load_config
from heddle.config.translation import (
    TEI_VARIABLES,
    TEI_WITHOUT_EFFECT,
    convert_tei_variable,
    translate,
)
from heddle.rpc.settings import resolve
from http_gateway.settings import GatewaySettings
from tests.heddle.config.configs import BUILD, RUNTIME, SEED, load
from tokenizer_svc.settings import TokenizerSettings

SETTINGS = {
    "HEDDLE_SERVE_": ServeSettings,
    "HEDDLE_ENGINE_": EngineSettings,
    "HEDDLE_TOKENIZER_": TokenizerSettings,
    "HEDDLE_GATEWAY_": GatewaySettings,
}

REPOSITORY = f"{BUILD}.checkpoint_repository"


def variables_of(folder: Path, fields: dict[str, Any], gpus: int = 0) -> dict[str, str]:
    """Fields that every config has are left out."""
    variables = translate(load(folder, fields).config, folder, gpus=gpus)
    check_accepted(variables)
    return {name: text for name, text in variables.items() if name not in ("HEDDLE_SERVE_MODEL", "HEDDLE_SERVE_ENGINE")}


def check_accepted(variables: dict[str, str]) -> None:
    """Every service accepts its own."""
    for prefix, own in SETTINGS.items():
        resolve(own, [], variables, prog="test", env_prefix=prefix)
    assert all(name.startswith((*SETTINGS, "HEDDLE_BUILD_", "HF_TOKEN")) for name in variables)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedding", {"MODEL": "BAAI/bge-large-en-v1.5", "ENGINE": "auto"}),
        ("reranking", {"MODEL": "BAAI/bge-reranker-v2-m3", "ENGINE": "auto", "ROUTE": "/rerank"}),
        (
            "classification",
            {"MODEL": "papluca/xlm-roberta-base-language-detection", "ENGINE": "auto", "ROUTE": "/predict"},
        ),
        (
            "entities",
            {"MODEL": "baseten-admin/bert-base-ner-uncased", "ENGINE": "torch", "ROUTE": "/predict_tokens"},
        ),
        (
            "key_options",
            {"MODEL": "model-repo-name", "ENGINE": "auto", "QUANTIZATION": "fp8", "ROUTE": "/v1/embeddings"},
        ),
    ],
)
@pytest.mark.parametrize("gpus", [0, 1])
def test_the_seeds_configurations_start_what_they_describe(name: str, expected: dict[str, str], gpus: int) -> None:
    variables = translate(load_config(SEED / f"{name}.yaml").config, SEED, gpus=gpus)
    check_accepted(variables)
    route = {"HEDDLE_GATEWAY_DEFAULT_ROUTE": expected["ROUTE"]} if "ROUTE" in expected else {}
    tokens = {"HEDDLE_ENGINE_BATCH_TOKENS_MAX": "16384"} if gpus else {}
    serve = {f"HEDDLE_SERVE_{key}": value for key, value in expected.items() if key != "ROUTE"}
    assert variables == {**serve, **route, **tokens}


@pytest.mark.parametrize(
    ("fields", "on_gpu", "on_cpu"),
    [
        ({}, "16384", None),
        ({f"{BUILD}.base_model": "encoder_bert"}, "8192", None),
        ({f"{BUILD}.max_num_tokens": 131_072}, "131072", None),
        ({f"{BUILD}.max_num_tokens": 256}, "256", "256"),
        ({"environment_variables.MAX_BATCH_TOKENS": 4096}, "4096", "4096"),
        ({f"{BUILD}.max_num_tokens": 128, "environment_variables.MAX_BATCH_TOKENS": 4096}, "128", "128"),
        ({f"{BUILD}.max_num_tokens": 128, "environment_variables.HEDDLE_ENGINE_BATCH_TOKENS_MAX": 64}, "64", "64"),
    ],
)
def test_tokens_of_a_pass_follow_the_most_specific_statement(
    tmp_path: Path, fields: dict[str, Any], on_gpu: str, on_cpu: str | None
) -> None:
    assert variables_of(tmp_path, fields, gpus=1)["HEDDLE_ENGINE_BATCH_TOKENS_MAX"] == on_gpu
    assert variables_of(tmp_path, fields).get("HEDDLE_ENGINE_BATCH_TOKENS_MAX") == on_cpu


def test_names_of_the_model(tmp_path: Path) -> None:
    def names(fields: dict[str, Any]) -> set[str | None]:
        variables = variables_of(tmp_path, fields)
        return {variables.get(f"HEDDLE_{service}_SERVED_MODEL_NAME") for service in ("ENGINE", "TOKENIZER")}

    assert names({}) == {None}
    assert names({"model_name": "mine"}) == {"mine"}
    assert names({"model_name": "mine", "environment_variables.SERVED_MODEL_NAME": "yours"}) == {"yours"}
    assert names({"model_name": "mine", f"{RUNTIME}.served_model_name": "theirs"}) == {"theirs"}


@pytest.mark.parametrize(
    ("card", "gpus", "engines"), [("L4:4", 2, "2"), ("L4:2", 4, "2"), ("L4:2", 0, None), ("L4", 2, None)]
)
def test_several_cards_are_as_many_engines_as_there_are_gpus(
    tmp_path: Path, card: str, gpus: int, engines: str | None
) -> None:
    assert variables_of(tmp_path, {"resources.accelerator": card}, gpus).get("HEDDLE_SERVE_ENGINES") == engines


def test_build_fields_set_the_variables_of_a_build(tmp_path: Path) -> None:
    assert variables_of(tmp_path, {f"{BUILD}.quantization_config": {"calib_dataset": "a/b"}}) == {}
    calibration = {"calib_size": 1024, "calib_max_seq_length": 512}
    fields = {f"{BUILD}.quantization_configuration": calibration, f"{BUILD}.num_builder_gpus": 2}
    assert variables_of(tmp_path, fields) == {
        "HEDDLE_BUILD_BUILDER_GPUS": "2",
        "HEDDLE_BUILD_CALIBRATION_SIZE": "1024",
        "HEDDLE_BUILD_CALIBRATION_TOKENS_MAX": "512",
    }


def test_a_local_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    for stated, expected in (("models/a", str(tmp_path / "models/a")), ("/models/a", "/models/a")):
        loaded = load(tmp_path, {f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": stated})
        assert translate(loaded.config, tmp_path, gpus=0)["HEDDLE_SERVE_MODEL"] == expected


def test_main_is_no_revision(tmp_path: Path) -> None:
    assert not variables_of(tmp_path, {f"{REPOSITORY}.revision": "main"})
    assert variables_of(tmp_path, {f"{REPOSITORY}.revision": "v2"}) == {"HEDDLE_SERVE_REVISION": "v2"}


def test_every_variable_of_tei_is_one_that_a_service_accepts(tmp_path: Path) -> None:
    stated = {
        "API_KEY": "secret",
        "AUTO_TRUNCATE": False,
        "CORS_ALLOW_ORIGIN": "https://app.example.com",
        "DEFAULT_PROMPT": "query: ",
        "DEFAULT_PROMPT_NAME": "query",
        "DTYPE": "float16",
        "HF_API_TOKEN": "hf_older",
        "HF_TOKEN": "hf_newer",
        "JSON_OUTPUT": True,
        "LOG_LEVEL": "WARN",
        "MAX_BATCH_REQUESTS": 8,
        "MAX_BATCH_TOKENS": 1024,
        "MAX_CLIENT_BATCH_SIZE": 128,
        "MAX_CONCURRENT_REQUESTS": 2048,
        "PAYLOAD_LIMIT": 2_000_000,
        "POOLING": "last-token",
        "SERVED_MODEL_NAME": "mine",
    }
    assert set(stated) == set(TEI_VARIABLES)
    for name, value in stated.items():
        variables = variables_of(tmp_path, {f"environment_variables.{name}": value})
        assert set(variables) == set(TEI_VARIABLES[name].variables)
    variables = variables_of(tmp_path, {"environment_variables.DEFAULT_PROMPT": "query: "})
    assert variables == {"HEDDLE_TOKENIZER_DEFAULT_PROMPT": "query: "}
    assert variables_of(tmp_path, {"environment_variables.AUTO_TRUNCATE": 0}) == {"HEDDLE_TOKENIZER_TRUNCATE": "false"}


def test_every_argument_of_tei_has_an_effect_or_a_reason() -> None:
    """Lists https://huggingface.co/docs/text-embeddings-inference/cli_arguments, by variable."""
    arguments = """MODEL_ID REVISION TOKENIZATION_WORKERS DTYPE SERVED_MODEL_NAME POOLING MAX_CONCURRENT_REQUESTS
        MAX_BATCH_TOKENS MAX_BATCH_REQUESTS MAX_CLIENT_BATCH_SIZE AUTO_TRUNCATE DEFAULT_PROMPT_NAME DEFAULT_PROMPT
        DENSE_PATH HF_API_TOKEN HF_TOKEN HOSTNAME PORT UDS_PATH HUGGINGFACE_HUB_CACHE PAYLOAD_LIMIT API_KEY JSON_OUTPUT
        DISABLE_SPANS OTLP_ENDPOINT OTLP_SERVICE_NAME PROMETHEUS_PORT CORS_ALLOW_ORIGIN LOG_LEVEL DEVICE_ID
        RADIX_MLP_THRESHOLD TASK"""
    assert not TEI_VARIABLES.keys() & TEI_WITHOUT_EFFECT.keys()
    assert {*TEI_VARIABLES, *TEI_WITHOUT_EFFECT} == set(arguments.split())


@pytest.mark.parametrize("name", [name for name, variable in TEI_VARIABLES.items() if variable.convert is not str])
@settings(deadline=None, max_examples=40)
@given(text=st.sampled_from(["1", "0", "true", "64", "99999999999", "268435456", "cls", "info"]) | st.text(max_size=8))
def test_a_value_for_tei_is_accepted_by_every_service_or_refused_with_the_file(name: str, text: str) -> None:
    found = convert_or_refuse(name, text)
    if isinstance(found, str):
        assert found.startswith("must be ")
    else:
        check_accepted(found)


def convert_or_refuse(name: str, text: str) -> dict[str, str] | str:
    try:
        return convert_tei_variable(name, text)
    except ValueError as error:
        return str(error)


def test_hf_token_replaces_hf_api_token(tmp_path: Path) -> None:
    variables = variables_of(tmp_path, {"environment_variables": {"HF_TOKEN": "newer", "HF_API_TOKEN": "older"}})
    assert variables == {"HF_TOKEN": "newer"}


def test_a_bucket_is_served_by_its_address(tmp_path: Path) -> None:
    for source, stated, expected in (
        ("S3", "bucket/m", "s3://bucket/m"),
        ("S3", "s3://bucket/m", "s3://bucket/m"),
        ("GCS", "bucket/m", "gs://bucket/m"),
        ("AZURE", "container/m", "az://container/m"),
        ("AZURE", "azure://account/container/m", "azure://account/container/m"),
        ("REMOTE_URL", "https://host/m.tar", "https://host/m.tar"),
    ):
        loaded = load(tmp_path, {f"{REPOSITORY}.source": source, f"{REPOSITORY}.repo": stated})
        assert translate(loaded.config, tmp_path, gpus=0)["HEDDLE_SERVE_MODEL"] == expected
