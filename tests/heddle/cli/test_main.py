"""The `heddle` command as a user sees it: a process with flags, output and an exit code."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from heddle.cli import main
from heddle.cli.serve import OVERRIDDEN_VARIABLES
from tests.heddle.cli.command import ANY_PORTS, ended, heddle, serving, write_stand_ins


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_stand_ins(tmp_path)


async def test_serve_prints_its_addresses_and_stops_in_order_on_ctrl_c(folder: Path) -> None:
    async with serving(folder, "--engines", "2") as (process, welcome):
        url = next(line.split()[1] for line in welcome.splitlines() if "HTTP" in line)
        assert f"curl {url}/v1/embeddings -H 'Content-Type: application/json' -d " in welcome
        assert "sentence-transformers/all-MiniLM-L6-v2 is ready after" in welcome
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /ready HTTP/1.0\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()
        process.send_signal(signal.SIGINT)
        code, _, log = await ended(process)
    assert code == 0
    stopped = [line.split(":")[0] for line in log.splitlines() if line.endswith("stopped")]
    assert stopped[:2] == ["gateway", "tokenizer"]
    assert sorted(stopped[2:]) == ["engine 0", "engine 1"]


@pytest.mark.parametrize("keys", ["secret", "secret, another"])
async def test_the_example_uses_the_key_without_showing_it(folder: Path, keys: str) -> None:
    environ = {"HEDDLE_GATEWAY_API_KEYS": keys}
    async with serving(folder, **environ) as (process, welcome):
        process.terminate()
        await ended(process)
    assert "secret" not in welcome
    line = next(line for line in welcome.splitlines() if "curl" in line).replace("curl", "printf '%s\\n'")
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environ})
    arguments, _ = await shell.communicate()
    assert b"Authorization: Bearer secret\n" in arguments


@pytest.mark.parametrize(
    ("extra", "library", "command"),
    [
        ("engine", "safetensors", "engine-svc"),
        ("tokenizer", "tokenizers", "tokenizer-svc"),
        ("gateway", "msgspec", "http-gateway"),
    ],
)
def test_a_command_without_its_extra_says_so_in_one_line(extra: str, library: str, command: str) -> None:
    missing = (library, "uvloop", "prometheus_client", "grpc_health")  # `pip install heddle` installs none of them
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}));from heddle.cli.commands import {extra}; {extra}()"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environ)
    line = f"{command}: its libraries are not installed: pip install 'heddle[{extra}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_every_command_of_the_package_leads_to_its_service() -> None:
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for command, place in scripts.items():
        module, _, function = place.partition(":")
        script = f"import sys; sys.argv[1:] = ['--help']; import {module}; {module}.{function}()"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {command} ")


async def test_serve_passes_its_flags_to_the_services(folder: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    async with serving(
        folder, "--engine", "simulated", "--dtype", "float16", "--quantization", "fp8", "--engines", "2"
    ) as (process, _):
        process.terminate()
        _, _, log = await ended(process)
    started = {
        line.split(": started ")[0]: line.split(": started ")[1] for line in log.splitlines() if " started " in line
    }
    assert "--backend simulated --dtype float16 --quantization fp8" in started["engine 1"]
    assert f"--threads {max(1, cores // 2)}" in started["engine 1"]
    sockets = [started[name].split("--listen ")[1].split()[0] for name in ("engine 0", "engine 1")]
    assert f"--engines {','.join(sockets)}" in started["tokenizer"]
    assert started["gateway"].split("--tokenizers ")[1].split()[0] in started["tokenizer"]


async def test_with_json_every_line_is_an_object(folder: Path) -> None:
    process = await heddle(folder, "serve", *ANY_PORTS, "--log-format", "json")
    assert process.stdout
    welcome = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    process.terminate()
    code, _, log = await ended(process)
    first, *others = map(json.loads, log.splitlines())
    assert (code, first["message"], first["service"]) == (0, "settings", "heddle")
    assert {"name": "log_format", "value": "json", "from": "--log-format"} in first["settings"]
    assert {line.get("process") for line in others} >= {"gateway", "tokenizer", "engine"}
    assert "heddle top http://127.0.0.1:" in welcome["message"]


async def test_variables_of_a_service_apply_where_serve_has_no_setting(folder: Path) -> None:
    variables = {"HEDDLE_ENGINE_THREADS": "1", "HEDDLE_GATEWAY_LOG_LEVEL": "info"}
    async with serving(folder, **variables) as (process, _):
        process.terminate()
        _, _, log = await ended(process)
    started = {line.split(": started ")[0]: line for line in log.splitlines() if " started " in line}
    assert not any(flag in started["engine"] for flag in ("--threads", "--dtype", "--quantization"))
    assert "--log-level" not in started["gateway"]
    assert "--log-level warning" in started["engine"]


@pytest.mark.parametrize("name", sorted(OVERRIDDEN_VARIABLES))
async def test_variable_without_effect_is_rejected(folder: Path, name: str) -> None:
    code, _, log = await ended(await heddle(folder, "serve", **{name: "x"}))
    assert (code, log) == (2, f"heddle: {name} has no effect on heddle serve: use its own flag or variable instead\n")


async def test_unknown_variable_is_rejected(folder: Path) -> None:
    code, _, log = await ended(await heddle(folder, "serve", HEDDLE_API_KEYS="secret"))
    assert code == 2
    assert log.startswith("heddle: unknown environment variable HEDDLE_API_KEYS: known prefixes are HEDDLE_SERVE_,")


@pytest.fixture
def sockets() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # tmp_path can be too long for a socket's address
        yield Path(name)


async def test_serve_leaves_no_sockets_behind(folder: Path, sockets: Path) -> None:
    async with serving(folder, TMPDIR=str(sockets)) as (process, _):
        assert "engine-0" in names_below(sockets)
        process.terminate()
        await ended(process)
    assert not names_below(sockets)


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


async def test_serve_ends_with_2_when_a_service_refuses_its_settings(folder: Path) -> None:
    code, output, log = await ended(await heddle(folder, "serve", *ANY_PORTS, STAND_IN_FAILS="tokenizer_svc"))
    assert (code, output) == (2, "")
    assert log.count("tokenizer: the flags contradict each other") == 1
    assert "Traceback" not in log


async def test_serve_names_the_port_that_is_in_use(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, log = await ended(await heddle(folder, "serve", "--grpc-port", "0", "--http-port", str(port)))
    assert (code, log.splitlines()[-1]) == (2, f"heddle: cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--model", "/no/such/model"], "heddle: there is no model folder /no/such/model\n"),
        (["--http-prot", "1"], "heddle serve: unknown flag --http-prot; did you mean --http-port?\n"),
        (["--engines", "0"], "heddle serve: engines must be at least 1, not 0\n"),
    ],
)
async def test_serve_reports_a_mistake_in_one_line(argv: list[str], line: str, folder: Path) -> None:
    code, output, log = await ended(await heddle(folder, "serve", *argv))
    assert (code, output, log.splitlines(keepends=True)[-1]) == (2, "", line)  # below the settings, if they are valid


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"], {}) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in main.COMMANDS)


def test_models_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["models"], {}) == 0
    printed = capsys.readouterr().out
    assert "| bert " in printed
    assert "all-MiniLM" in printed


def test_models_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["models", "--help"], {}) == 0
    assert main.main(["models", "bert"], {}) == 2
    assert "heddle models: unknown argument bert" in capsys.readouterr().err


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["sreve"], {}) == 2
    assert capsys.readouterr().err == "heddle: unknown command sreve; did you mean serve? (see heddle --help)\n"


def test_a_missing_command_shows_help_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([], {}) == 2
    assert capsys.readouterr().out.startswith("usage: heddle COMMAND")
