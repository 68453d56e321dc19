"""`heddle config`, and `heddle serve` with a config file: what a user reads, and what overrides what."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.cli import main
from heddle.cli.config_check import CPU_BFLOAT16_FLAGS, explain
from heddle.cli.config_command import configure_serve, split_config_file
from heddle.rpc.settings import ConfigurationError
from tests.heddle.cli.command import ended, heddle, serving, write_stand_ins
from tests.heddle.config.configs import BUILD, RUNTIME, SEED, load
from tests.kinds import write_reranker

REPOSITORY = f"{BUILD}.checkpoint_repository"
MINILM = {f"{REPOSITORY}.repo": PACKAGED_NAME, f"{BUILD}.base_model": "encoder_bert"}


def write_config(folder: Path, **fields: Any) -> Path:
    return load(folder, {**MINILM, **fields}).path


def explained(path: Path, *flags: str, **environ: str) -> dict[str, str]:
    lines = explain(configure_serve(path, flags, environ)).splitlines()
    return {line[:15].strip(): line[15:] for line in lines}


def test_check_says_what_would_run_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, **{f"{BUILD}.num_builder_gpus": 2})
    assert main.main(["config", "check", str(path)], {}) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    topics = ("model", "engine", "device", "dtype", "quantization", "batches", "texts", "default route")
    assert [line[:15].strip() for line in shown.out.splitlines()[1:9]] == list(topics)
    assert "BertModel, an embedder" in shown.out
    assert "torch, because of base_model encoder_bert" in shown.out
    assert "up to 256 tokens; longer ones are cut" in shown.out
    assert "/v1/embeddings, because the model is an embedder" in shown.out
    assert f"  {BUILD}.num_builder_gpus: Heddle compiles no engine" in shown.out


def test_check_tells_each_mistake_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text((SEED / "reranking.yaml").read_text().replace("16384", "100").replace("/rerank", "/reranks"))
    assert main.main(["config", "check", str(path)], {}) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    route = "/v1/embeddings, /rerank, /predict or /predict_tokens, not /reranks"
    assert shown.err.splitlines() == [
        f"heddle config: {path}: {BUILD}.max_num_tokens must be a multiple of 64, not 100",
        f"heddle config: {path}: {RUNTIME}.webserver_default_route must be {route}",
    ]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"HEDDLE_ENGINE_THREADS": "many"}, "HEDDLE_ENGINE_THREADS: 'many' is not a whole number"),
        ({"HEDDLE_TOKENIZER_TRUNKATE": "1"}, "unknown environment variable HEDDLE_TOKENIZER_TRUNKATE; did you mean"),
        ({"HEDDLE_GATEWAY_PORT": "80"}, "HEDDLE_GATEWAY_PORT has no effect on heddle serve"),
        ({"DEFAULT_PROMPT": "a", "DEFAULT_PROMPT_NAME": "b"}, "default_prompt and default_prompt_name exclude"),
        ({"HEDDLE_SERVE_ENGINES": "0"}, "engines must be at least 1, not 0"),
    ],
)
def test_check_finds_settings_that_a_service_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], variables: dict[str, str], line: str
) -> None:
    path = write_config(tmp_path, environment_variables=variables)
    assert main.main(["config", "check", str(path)], {}) == 2
    assert line in capsys.readouterr().err


def test_check_names_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, **{f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": "models/a"})
    assert main.main(["config", "check", str(path)], {}) == 2
    assert capsys.readouterr().err == f"heddle config: there is no model folder {tmp_path}/models/a\n"


def test_check_refuses_to_quantize_what_the_engine_would_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, **{f"{BUILD}.base_model": "encoder", f"{BUILD}.quantization_type": "fp8"})
    assert main.main(["config", "check", str(path)], {}) == 2
    assert "--quantization fp8 is for decoders, not for" in capsys.readouterr().err


def test_check_warns_of_a_route_that_the_model_does_not_answer(tmp_path: Path) -> None:
    path = write_config(tmp_path, **{f"{RUNTIME}.webserver_default_route": "/rerank"})
    assert explained(path)["default route"] == (
        "/rerank, which this model does not answer: it is an embedder (take /v1/embeddings)"
    )


def test_check_says_what_it_cannot_know_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.cli.config_check.find_downloaded", lambda *_: None)
    topics = explained(SEED / "reranking.yaml", TRUSS_SECRET_hf_access_token="secret")
    assert topics["model"] == ("BAAI/bge-reranker-v2-m3 of the Hugging Face hub, which will be downloaded with a token")
    assert topics["default route"] == "/rerank, as stated"
    assert topics["texts"].startswith("up to as many tokens as the model's files say")


@pytest.mark.parametrize(
    ("gpus", "installed", "engine"),
    [
        (0, True, "torch: base_model encoder would take TensorRT-LLM, which needs an NVIDIA GPU"),
        (1, False, "torch: base_model encoder would take TensorRT-LLM, which is not installed here"),
        (1, True, "tensorrt_llm if it serves this model on this GPU, else torch (base_model encoder)"),
    ],
)
def test_check_says_which_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, *, installed: bool, engine: str
) -> None:
    monkeypatch.setattr("heddle.cli.config_command.visible_gpus", lambda _: ("0",) * gpus)
    monkeypatch.setattr("heddle.cli.config_check.is_installed", lambda _: installed)
    path = write_config(tmp_path, **{f"{BUILD}.base_model": "encoder"})
    topics = explained(path)
    assert topics["engine"] == engine
    assert topics["batches"].startswith(f"at most {16_384 if gpus else 512} tokens")
    assert explained(path, "--engine", "torch")["engine"] == "torch, as set"


def test_check_says_which_dtype_the_cpu_computes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reranker(tmp_path / "model")
    scores = write_config(tmp_path, **{f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": "model"})
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr("heddle.cli.config_check.CPU_INFO", info)
    for flags, kind in (("", "float32"), ("avx512f", "float32"), *((flag, "bfloat16") for flag in CPU_BFLOAT16_FLAGS)):
        info.write_text(f"flags : fpu {flags}\n")
        vectors = write_config(tmp_path / "model")
        assert explained(vectors, "--device", "cpu")["dtype"].startswith(kind)
        assert explained(scores, "--device", "cpu")["dtype"].startswith("float32")


def test_schema_is_json_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", "schema"], {}) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["$defs"]["Build"]["required"]) == {"base_model", "checkpoint_repository"}


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["chekc"], "heddle config: unknown command chekc; did you mean check? (see heddle config --help)\n"),
        (["check"], "heddle config: check takes the path of a config.yaml (see heddle config --help)\n"),
        (["schema", "x"], "heddle config: schema takes no arguments (see heddle config --help)\n"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", *argv], {}) == 2
    assert capsys.readouterr().err == line


def test_help_says_how_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["config", "--help"], {}) == 0
    assert main.main(["config"], {}) == 2
    assert capsys.readouterr().out.count("usage: heddle config check CONFIG") == 2


@pytest.mark.parametrize(
    ("argv", "path", "flags"),
    [
        ([], None, []),
        (["--http-port", "0"], None, ["--http-port", "0"]),
        (["a.yaml", "--engines", "2"], "a.yaml", ["--engines", "2"]),
        (["--engines", "2", "a.yml"], "a.yml", ["--engines", "2"]),
        (["truss", "--engines", "2"], "truss", ["--engines", "2"]),
    ],
)
def test_the_config_file_may_stand_before_or_after_the_flags(
    argv: list[str], path: str | None, flags: list[str]
) -> None:
    assert split_config_file(argv) == (path and Path(path), flags)


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    path = write_config(tmp_path, environment_variables={"DTYPE": "float32"})
    assert configure_serve(path, [], {}).settings.dtype == "float32"
    assert configure_serve(path, [], {"HEDDLE_SERVE_DTYPE": ""}).settings.dtype == "float32"
    environ = {"HEDDLE_SERVE_DTYPE": "bfloat16"}
    assert configure_serve(path, [], environ).settings.dtype == "bfloat16"
    assert configure_serve(path, ["--dtype", "float16"], environ).settings.dtype == "float16"
    with pytest.raises(ConfigurationError, match="unknown flag --dtpye"):
        configure_serve(path, ["--dtpye", "float16"], environ)


def test_a_token_of_the_environment_comes_before_the_secret(tmp_path: Path) -> None:
    path, secret = write_config(tmp_path), {"TRUSS_SECRET_hf_access_token": "secret"}
    assert configure_serve(path, [], secret).environ["HF_TOKEN"] == "secret"
    assert configure_serve(path, [], {**secret, "HF_TOKEN": "own"}).environ["HF_TOKEN"] == "own"


def test_engines_get_the_gpus_that_the_card_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.cli.config_command.visible_gpus", lambda _: ("0", "1"))
    path = write_config(tmp_path, **{"resources.accelerator": "L4:4"})
    assert configure_serve(path, [], {}).settings.engines == 2
    for flags in (["--device", "cpu"], ["--device", "cuda:1"], ["--engine", "simulated"]):
        assert configure_serve(path, flags, {}).settings.engines == 1


async def test_serve_starts_what_the_file_says_and_names_fields_without_effect_once(tmp_path: Path) -> None:
    folder = write_stand_ins(tmp_path)
    fields = {"python_version": "py311", "environment_variables": {"DTYPE": "float32", "FOO": "1"}}
    path = write_config(tmp_path, **fields, **{f"{BUILD}.max_seq_len": 512})
    async with serving(folder, str(path), "--engine", "simulated") as (process, welcome):
        process.terminate()
        _, _, log = await ended(process)
    assert f"{PACKAGED_NAME} is ready after" in welcome
    assert "--backend simulated --dtype float32" in log
    (line,) = (line for line in log.splitlines() if "without effect" in line)
    assert line == (
        f"heddle: {path}: without effect here: python_version, {BUILD}.max_seq_len, environment_variables.FOO"
    )


async def test_serve_tells_mistakes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("trt_llm: {build: {base_model: encoder}}")
    code, output, log = await ended(await heddle(tmp_path, "serve", str(path)))
    line = f"heddle serve: {path}: {REPOSITORY} is required\n"
    assert (code, output, log) == (2, "", line)


@pytest.mark.parametrize(
    ("argv", "library", "line"),
    [
        (["serve", "a.yaml"], "yaml", "heddle serve: a config file needs yaml; pip install 'heddle[local]'\n"),
        (["config", "check", "a.yaml"], "yaml", "heddle: config needs yaml; pip install 'heddle[local]'\n"),
        (["config", "schema"], "pydantic", "heddle: config needs pydantic; pip install 'heddle[local]'\n"),
    ],
)
def test_a_library_that_is_not_installed_is_named_in_one_line(argv: list[str], library: str, line: str) -> None:
    script = (
        f"import sys; sys.modules[{library!r}] = None;"
        f"from heddle.cli.main import main; sys.exit(main({argv}, {{'PATH': ''}}))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
