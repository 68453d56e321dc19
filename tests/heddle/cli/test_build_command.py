"""`heddle build`: its messages, its output folder, and that it never deletes other files."""

import logging
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.manifest import read_manifest, verify
from heddle.artifacts.store import Store
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.sentence_modules import Pooling
from heddle.cli import main
from heddle.cli.build_command import read_settings
from heddle.cli.build_settings import BuildSettings
from heddle.cli.building import make_request
from tests.checkpoints import write_bert, write_old_modules, write_tokenizer
from tests.engine_svc.build.building import read_folder, read_tensors
from tests.engine_svc.models.trained_like import DECODERS, write_decoder
from tests.heddle.config.configs import load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    write_tokenizer(folder)
    write_bert(folder)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
    return folder


def run(*argv: object, **environ: str) -> int:
    return main.main(["build", *map(str, argv)], environ)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_build_goes_to_the_cache_and_is_made_once(
    bert: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", bert) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("bert was built in ")
    folder = Path(first[1].split()[1])
    assert folder.parent == cache / "artifacts"
    verify(folder, read_manifest(folder))
    assert run("--model", bert) == 0
    second = capsys.readouterr().out.splitlines()
    assert second[0] == "bert was already built:"
    assert second[1:] == first[1:]
    assert names(cache / "partial") == set()


def test_a_changed_checkpoint_is_another_build(bert: Path, cache: Path) -> None:
    assert run("--model", bert) == 0
    write_bert(bert, num_hidden_layers=1)
    assert run("--model", bert) == 0
    assert len(names(cache / "artifacts")) == 2


def test_output_is_written_and_not_written_again(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "output"
    assert run("--model", bert, "--output", output) == 0
    made = (output / "model.safetensors").stat()
    assert run("--model", bert, "--output", output) == 0
    assert "was already built" in capsys.readouterr().out
    assert (output / "model.safetensors").stat() == made
    assert names(output.parent) == {"output"}


def test_another_build_is_replaced_by_force_only(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    assert run("--model", bert, "--output", output) == 0
    before = read_folder(output)
    assert run("--model", bert, "--output", output, "--dtype", "bfloat16") == 2
    mistake = f"heddle build: --output {output} is a different build (--force replaces it)\n"
    assert capsys.readouterr().err.endswith(mistake)
    assert read_folder(output) == before
    assert run("--model", bert, "--output", output, "--dtype", "bfloat16", "--force") == 0
    read = read_tensors(output / "model.safetensors")
    assert read["embeddings.word_embeddings.weight"].dtype == torch.bfloat16
    assert names(tmp_path) == {"bert", "output"}


@pytest.mark.parametrize("flags", [(), ("--force",)])
def test_a_folder_that_is_not_a_build_is_never_changed(
    bert: Path, tmp_path: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "thesis.tex").write_text("precious")
    assert run("--model", bert, "--output", output, *flags) == 2
    assert f"{output} is not empty and not a Heddle build" in capsys.readouterr().err
    assert read_folder(output) == {"thesis.tex": b"precious"}
    assert run("--model", bert, "--output", output / "thesis.tex", *flags) == 2
    assert run("--model", bert, "--output", bert, *flags) == 2
    assert "manifest.json" not in names(bert)


def test_an_incomplete_build_is_not_accepted(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "output"
    assert run("--model", bert, "--output", output) == 0
    (output / "model.safetensors").unlink()
    assert run("--model", bert, "--output", output) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert run("--model", bert, "--output", output, "--force") == 0
    verify(output, read_manifest(output))


def test_verify_reads_every_file(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "output"
    assert run("--model", bert, "--output", output) == 0
    capsys.readouterr()
    assert run("--verify", output) == 0
    assert re.fullmatch(rf"{output} is complete and unchanged: \d+ files, [\d.]+ kB\n", capsys.readouterr().out)
    path = output / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run("--verify", output) == 2
    assert f"{path} differs from its hash" in capsys.readouterr().err.splitlines()[-1]


def test_a_closed_pipe_is_left_to_the_entry_point(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.print", Mock(side_effect=BrokenPipeError))
    with pytest.raises(BrokenPipeError):
        run("--model", bert)


def test_the_output_is_checked_before_the_model_is_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert run("--model", "./nowhere", "--output", tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"heddle build: --output {tmp_path} is not empty")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--model is required (or HEDDLE_BUILD_MODEL)"),
        (("--model", "./nowhere"), "there is no model folder nowhere"),
        (("--model", "{bert}", "--dtype", "int8"), "--dtype: 'int8' is not one of"),
        (("--model", "{bert}", "--quantization", "fp8"), "fp8 is for decoders"),
        (("--model", "{bert}", "--quantization", "fp4_kv"), "fp4_kv is for decoders"),
        (("--model", "{bert}", "--quantization", "weights_int4"), "is not one of"),
        (("--model", "{bert}", "--outputs", "x"), "unknown flag --outputs; did you mean --output?"),
        (("--model", "{bert}", "--store", "s4://bucket"), "s4"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    bert: Path, flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(flag.format(bert=bert) for flag in flags)) == 2
    log = capsys.readouterr().err
    assert "calibrating" not in log
    last = log.splitlines()[-1]
    assert last.startswith("heddle build: ")
    assert message in last


def test_a_broken_checkpoint_leaves_nothing_behind(
    bert: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert run("--model", bert, "--output", tmp_path / "output") == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]
    assert run("--model", bert) == 2
    assert names(tmp_path) == {"bert", "cache"}
    assert names(cache / "partial") | names(cache / "artifacts") == set()


def test_a_full_disk_is_reported_in_one_line(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert run("--model", bert, "--output", tmp_path / "output") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"heddle build: no space is left in {tmp_path}: ")
    assert names(tmp_path) == {"bert"}


def test_an_unwritable_output_is_reported_in_one_line(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", bert, "--output", "/dev/null/deep/output") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("heddle build: /dev/null/")
    assert last.endswith(": Not a directory")


def test_a_config_file_says_what_to_build(bert: Path, tmp_path: Path) -> None:
    build = {"base_model": "encoder_bert", "checkpoint_repository": {"source": "LOCAL", "repo": "bert"}}
    config = {"trt_llm": {"build": build}, "environment_variables": {"DTYPE": "float16", "POOLING": "cls"}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert run(path, "--output", tmp_path / "one") == 0
    assert Checkpoint.read(tmp_path / "one").pooling == (Pooling.CLS,)
    table = "embeddings.word_embeddings.weight"
    assert read_tensors(tmp_path / "one" / "model.safetensors")[table].dtype == torch.float16
    assert run(path, "--output", tmp_path / "two", "--pooling", "max", HEDDLE_BUILD_DTYPE="bfloat16") == 0
    assert Checkpoint.read(tmp_path / "two").pooling == (Pooling.MAX,)
    assert read_tensors(tmp_path / "two" / "model.safetensors")[table].dtype == torch.bfloat16


def test_build_settings_come_from_config_file_flags_and_variables(tmp_path: Path) -> None:
    build = {"quantization_type": "fp8_kv", "quantization_config": {"calib_size": 128}, "num_builder_gpus": 2}
    fields = {f"trt_llm.build.{name}": value for name, value in build.items()}
    variables = {"HEDDLE_BUILD_CALIBRATION_TOKENS_MAX": 32, "HEDDLE_BUILD_REPORT": False}
    path = load(tmp_path, {**fields, "environment_variables": variables}).path
    settings = read_settings([str(path)], {})
    assert (settings.quantization, settings.builder_gpus, settings.report) == ("fp8_kv", 2, False)
    assert (settings.calibration_size, settings.calibration_tokens_max) == (128, 32)
    assert read_settings([str(path)], {"HEDDLE_BUILD_CALIBRATION_SIZE": "64"}).calibration_size == 64
    assert read_settings([str(path), "--calibration-size", "16"], {}).calibration_size == 16


def test_a_published_build_is_fetched_by_its_content_without_the_checkpoint(
    bert: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model", bert, "--store", tmp_path / "store") == 0
    digest = capsys.readouterr().out.split()[-1]
    [folder] = (cache / "artifacts").iterdir()
    fetched = ArtifactCache(tmp_path / "pod").fetch(Store.at(str(tmp_path / "store")), digest, name="bert")
    assert read_folder(fetched) == read_folder(folder)


def test_a_build_in_the_store_is_not_made_again(
    bert: Path,
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "heddle")
    flags = ("--model", bert, "--store", tmp_path / "store")
    assert run(*flags) == 0
    first = capsys.readouterr()
    assert "converting" in caplog.text
    caplog.clear()
    cache.rename(tmp_path / "other-machine")
    assert run(*flags) == 0
    second = capsys.readouterr()
    assert "was already built" in second.out
    assert second.out.splitlines()[1:] == first.out.splitlines()[1:]
    assert "converting" not in caplog.text


def test_a_build_of_a_hub_model_is_found_by_name_and_settings(tmp_path: Path, cache: Path) -> None:
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert run("--model", name, "--store", tmp_path / "store") == 0
    request = make_request(BuildSettings(model=name))
    assert request is not None
    found = ArtifactCache(cache).find(request.key)
    assert found is not None
    assert Store.at(str(tmp_path / "store")).find(request.key) == found.name


@pytest.mark.slow
def test_a_quantized_build_reports_its_cosine_to_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, texts, output = tmp_path / "decoder", tmp_path / "texts.txt", tmp_path / "output"
    write_decoder(root, DECODERS[2])
    write_tokenizer(root)
    write_old_modules(root, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})
    texts.write_text("\n".join(f"w{index} w{index + 1} w{3 * index % 90}" for index in range(60)))
    flags = ("--model", root, "--output", output, "--quantization", "fp4", "--calibration-texts", texts)
    assert run(*flags) == 0
    shown = capsys.readouterr().out
    report = read_manifest(output).report
    assert report is not None
    assert 0.9 < report["cosine"]["worst"] <= report["cosine"]["mean"] < 1
    assert f"mean {report['cosine']['mean']:.4f}" in shown
    before = read_folder(output)
    assert run(*flags) == 0
    assert f"mean {report['cosine']['mean']:.4f}" in capsys.readouterr().out
    assert run(*flags, "--force", "--cores", "1") == 0
    assert read_folder(output) == before
    assert run(*flags, "--force", "--no-report") == 0
    assert read_manifest(output).report is None
