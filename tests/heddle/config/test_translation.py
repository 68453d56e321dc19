"""What a config becomes: variables of `heddle serve` and its services."""

from pathlib import Path
from typing import Any

import pytest

from engine_svc.settings import EngineSettings
from heddle.cli.serve_settings import ServeSettings
from heddle.config.loading import load_config
from heddle.config.translation import TEI_VARIABLES, find_hub_token, translate
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
    for prefix, settings in SETTINGS.items():
        resolve(settings, [], variables, prog="test", env_prefix=prefix)
    assert all(name.startswith(tuple(SETTINGS)) for name in variables)


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
        "JSON_OUTPUT": True,
        "LOG_LEVEL": "warn",
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


def test_the_hubs_token_is_where_truss_and_baseten_put_secrets(tmp_path: Path) -> None:
    config = load(tmp_path, {f"{REPOSITORY}.runtime_secret_name": "mine", "secrets": {"mine": "in the file"}}).config
    assert find_hub_token(config, {}, tmp_path) == ""
    (tmp_path / "mine").write_text("mounted\n")
    assert find_hub_token(config, {}, tmp_path) == "mounted"
    assert find_hub_token(config, {"TRUSS_SECRET_mine": "variable"}, tmp_path) == "variable"
