"""`heddle config`, and `heddle serve` with a config file: what a user reads, and what overrides what."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heddle.checkpoint.model_source import PACKAGED_NAME
from heddle.cli import main
from heddle.cli.config_command import MODEL_VARIABLE, configure_serve, split_config_file
from heddle.cli.serve_settings import NAME_VARIABLES
from heddle.rpc.settings import ConfigurationError
from tests.heddle.cli.command import ended, heddle, serving, write_stand_ins
from tests.heddle.config.configs import BUILD, RUNTIME, SEED, write_minilm_config

REPOSITORY = f"{BUILD}.checkpoint_repository"


def test_check_prints_a_line_for_each_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        ({"HEDDLE_SERVE_ENGINES": "0"}, "engines must be at least 1, not 0"),
    ],
)
def test_check_finds_settings_that_a_service_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], variables: dict[str, str], line: str
) -> None:
    path = write_minilm_config(tmp_path, environment_variables=variables)
    assert main.main(["config", "check", str(path)], {}) == 2
    assert capsys.readouterr().err.startswith(f"heddle config: {path}: {line}")


@pytest.mark.parametrize("mistake", [{"HEDDLE_SERVE_ENGINES": "0"}, {"HEDDLE_ENGINE_THREADS": "many"}])
def test_a_mistake_of_the_environment_does_not_name_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: dict[str, str]
) -> None:
    path = write_minilm_config(tmp_path, environment_variables={"HEDDLE_TOKENIZER_TRUNKATE": "1"})
    assert main.main(["config", "check", str(path)], mistake) == 2
    assert str(path) not in capsys.readouterr().err


def test_check_names_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_minilm_config(tmp_path, **{f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": "models/a"})
    assert main.main(["config", "check", str(path)], {}) == 2
    line = f"{REPOSITORY}.repo must be a folder, and there is none at {tmp_path}/models/a"
    assert capsys.readouterr().err == f"heddle config: {path}: {line}\n"
    assert main.main(["config", "check", str(path), "--model", PACKAGED_NAME], {}) == 0


def test_a_folder_of_the_file_is_served_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "repos" / "minilm").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    fields = {f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": "../repos/minilm"}
    path = write_minilm_config(tmp_path / "configs", **fields)
    names = [configure_serve(path, [], {}).environ[name] for name in NAME_VARIABLES]
    assert names == ["minilm", "minilm"]
    assert NAME_VARIABLES[0] not in configure_serve(path, ["--model", PACKAGED_NAME], {}).environ
    assert NAME_VARIABLES[0] not in configure_serve(path, [], {MODEL_VARIABLE: PACKAGED_NAME}).environ
    stated = write_minilm_config(tmp_path / "configs", **fields, model_name="mine")
    assert configure_serve(stated, [], {}).environ[NAME_VARIABLES[1]] == "mine"


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
def test_a_wrong_command_is_refused_in_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
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
        (["--engines", "2", "truss"], "truss", ["--engines", "2"]),
        (["--engines=2", "truss"], "truss", ["--engines=2"]),
        (["--model", "folder"], None, ["--model", "folder"]),
        (["--publish", "truss"], "truss", ["--publish"]),
        (["--no-report", "truss"], "truss", ["--no-report"]),
    ],
)
def test_the_config_file_may_stand_before_or_after_the_flags(
    argv: list[str], path: str | None, flags: list[str]
) -> None:
    assert split_config_file(argv) == (path and Path(path), flags)


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    path = write_minilm_config(tmp_path, environment_variables={"DTYPE": "float32"})
    assert configure_serve(path, [], {}).settings.dtype == "float32"
    assert configure_serve(path, [], {"HEDDLE_SERVE_DTYPE": ""}).settings.dtype == "float32"
    environ = {"HEDDLE_SERVE_DTYPE": "bfloat16"}
    assert configure_serve(path, [], environ).settings.dtype == "bfloat16"
    assert configure_serve(path, ["--dtype", "float16"], environ).settings.dtype == "float16"
    with pytest.raises(ConfigurationError, match="unknown flag --dtpye"):
        configure_serve(path, ["--dtpye", "float16"], environ)


def test_a_token_of_the_environment_comes_before_the_secret(tmp_path: Path) -> None:
    path, secret = write_minilm_config(tmp_path), {"TRUSS_SECRET_hf_access_token": "secret"}
    assert configure_serve(path, [], secret).environ["HF_TOKEN"] == "secret"
    assert configure_serve(path, [], {**secret, "HF_TOKEN": "own"}).environ["HF_TOKEN"] == "own"


def test_a_missing_secret_is_reported_as_without_effect(tmp_path: Path) -> None:
    path = write_minilm_config(tmp_path, **{f"{REPOSITORY}.runtime_secret_name": "mine"})
    reason = "there is neither a variable TRUSS_SECRET_mine nor a file /secrets/mine"
    assert configure_serve(path, [], {}).loaded.without_effect == {f"{REPOSITORY}.runtime_secret_name": reason}
    assert not configure_serve(path, [], {"TRUSS_SECRET_mine": "hf_mine"}).loaded.without_effect


def test_engines_get_the_gpus_that_the_card_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.cli.config_command.visible_gpus", lambda _: ("0", "1"))
    path = write_minilm_config(tmp_path, **{"resources.accelerator": "L4:4"})
    assert configure_serve(path, [], {}).settings.engines == 2
    for flags in (["--device", "cpu"], ["--device", "cuda:1"], ["--engine", "simulated"]):
        assert configure_serve(path, flags, {}).settings.engines == 1


async def test_serve_starts_what_the_file_says_and_names_fields_without_effect_once(tmp_path: Path) -> None:
    folder = write_stand_ins(tmp_path)
    fields = {"python_version": "py311", "environment_variables": {"DTYPE": "float32", "FOO": "1"}}
    path = write_minilm_config(tmp_path, **fields, **{f"{BUILD}.max_seq_len": 512})
    async with serving(folder, str(path), "--engine", "simulated") as (process, welcome):
        process.terminate()
        _, _, log = await ended(process)
    assert f"{PACKAGED_NAME} is ready after" in welcome
    assert "--backend simulated --dtype float32" in log
    (line,) = (line for line in log.splitlines() if "without effect" in line)
    assert line == (
        f"heddle: {path}: without effect here: python_version, {BUILD}.max_seq_len, environment_variables.FOO"
    )


async def test_serve_warns_of_a_default_route_that_the_model_cannot_answer(tmp_path: Path) -> None:
    folder = write_stand_ins(tmp_path)
    async with serving(folder, HEDDLE_GATEWAY_DEFAULT_ROUTE="/rerank") as (process, _):
        process.terminate()
        _, _, log = await ended(process)
    line = "heddle: POST / will fail: the default route is /rerank, which this model does not answer: it is an embedder"
    assert line in log


async def test_serve_reports_the_mistakes_of_the_file(tmp_path: Path) -> None:
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
