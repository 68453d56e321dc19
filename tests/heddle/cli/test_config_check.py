"""`heddle config check`: what it reports about models, engines and devices."""

from pathlib import Path

import pytest

from heddle.cli import main
from heddle.cli.config_check import explain, resolve_services
from heddle.cli.config_command import configure_serve
from heddle.cli.config_quantization import CPU_BFLOAT16_FLAGS
from tests.heddle.config.configs import BUILD, RUNTIME, SEED, write_minilm_config
from tests.kinds import write_reranker

REPOSITORY = f"{BUILD}.checkpoint_repository"


def explained(path: Path, *flags: str, **environ: str) -> dict[str, str]:
    configured = configure_serve(path, flags, environ)
    lines = explain(configured, resolve_services(configured.environ)).splitlines()
    return {line[:15].strip(): line[15:] for line in lines}


def test_check_says_what_would_run_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_minilm_config(tmp_path, **{f"{BUILD}.strongly_typed": True})
    assert main.main(["config", "check", str(path)], {}) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    numbers = ("dtype", "quantization", "build", "calibration")
    topics = ("model", "engine", "device", *numbers, "batches", "texts", "default route")
    assert [line[:15].strip() for line in shown.out.splitlines()[1:11]] == list(topics)
    assert "BertModel, an embedder" in shown.out
    assert "torch, because of base_model encoder_bert" in shown.out
    assert "up to 256 tokens; longer ones are cut" in shown.out
    assert "/v1/embeddings, because the model is an embedder" in shown.out
    assert f"  {BUILD}.strongly_typed: Heddle compiles no TensorRT engine" in shown.out


def test_check_downloads_nothing_for_another_model_than_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.checkpoint.model_source.download", None)
    monkeypatch.setattr("heddle.cli.config_check.find_downloaded", lambda *_: None)
    write_reranker(tmp_path / "model")
    local = write_minilm_config(tmp_path, **{f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": "model"})
    assert "will be downloaded" in explained(local, "--model", "BAAI/bge-m3")["model"]
    hub = write_minilm_config(tmp_path)
    topics = explained(hub, "--model", str(tmp_path / "model"))
    assert topics["model"].startswith(f"the folder {tmp_path / 'model'} (")
    assert "a reranker" in topics["default route"]


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("s3://bucket/models/minilm", "s3://bucket/models/minilm in S3"),
        ("gs://bucket/minilm", "gs://bucket/minilm in Google Cloud Storage"),
        ("az://container/minilm", "az://container/minilm in Azure Blob Storage"),
        ("https://me:secret@example.org/minilm.tar.gz?sig=secret", "https://example.org/minilm.tar.gz on the web"),
    ],
)
def test_check_says_where_an_address_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, place: str
) -> None:
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path / "cache"))
    model = explained(write_minilm_config(tmp_path), "--model", address)["model"]
    assert model == f"{place}, which will be downloaded into Heddle's cache"


def test_check_accepts_the_secret_of_a_web_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path / "cache"))
    fields = {"source": "REMOTE_URL", "repo": "https://example.org/minilm.tar.gz", "runtime_secret_name": "mine"}
    path = write_minilm_config(tmp_path, **{f"{REPOSITORY}.{name}": value for name, value in fields.items()})
    topics = explained(path, TRUSS_SECRET_mine="hidden")
    assert topics["model"].startswith("https://example.org/minilm.tar.gz on the web")
    assert "hidden" not in str(topics)


def test_check_says_that_a_gpu_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.cli.config_command.visible_gpus", lambda _: ())
    device = explained(write_minilm_config(tmp_path), "--device", "cuda:1")["device"]
    assert device == "cuda:1, but this machine has no NVIDIA GPU: the engine would not start"


def test_check_refuses_quantization_that_the_engine_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_minilm_config(tmp_path, **{f"{BUILD}.base_model": "encoder", f"{BUILD}.quantization_type": "fp8"})
    assert main.main(["config", "check", str(path)], {}) == 2
    assert "--quantization fp8 is for decoders, not for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "obstacle"),
    [
        (("--engine", "tensorrt_llm"), "engine tensorrt_llm needs an NVIDIA GPU, and the engine would run on a CPU"),
        (("--device", "cuda"), "device cuda: this machine has no NVIDIA GPU"),
    ],
)
def test_check_refuses_what_would_not_start_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    obstacle: str,
) -> None:
    monkeypatch.setattr("heddle.cli.config_command.visible_gpus", lambda _: ())
    path = write_minilm_config(tmp_path)
    assert main.main(["config", "check", str(path), *flags], {}) == 2
    shown = capsys.readouterr()
    assert shown.err == f"heddle config: {path}: heddle serve would not start here: {obstacle}\n"
    assert "is valid" not in shown.out
    assert main.main(["config", "check", str(path), *flags, "--engine", "simulated"], {}) == 0


def test_check_warns_of_a_route_that_the_model_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_minilm_config(tmp_path, **{f"{RUNTIME}.webserver_default_route": "/rerank"})
    assert main.main(["config", "check", str(path)], {}) == 0
    assert "but POST / would fail" in capsys.readouterr().out.splitlines()[0]
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
    path = write_minilm_config(tmp_path, **{f"{BUILD}.base_model": "encoder"})
    topics = explained(path)
    assert topics["engine"] == engine
    assert topics["batches"].startswith(f"at most {16_384 if gpus else 512} tokens")
    assert explained(path, "--engine", "torch")["engine"] == "torch, as set"


def test_check_says_which_dtype_the_cpu_computes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reranker(tmp_path / "model")
    scores = write_minilm_config(tmp_path, **{f"{REPOSITORY}.source": "LOCAL", f"{REPOSITORY}.repo": "model"})
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr("heddle.cli.config_quantization.CPU_INFO", info)
    for flags, kind in (("", "float32"), ("avx512f", "float32"), *((flag, "bfloat16") for flag in CPU_BFLOAT16_FLAGS)):
        info.write_text(f"flags : fpu {flags}\n")
        vectors = write_minilm_config(tmp_path / "model")
        assert explained(vectors, "--device", "cpu")["dtype"].startswith(kind)
        assert explained(scores, "--device", "cpu")["dtype"].startswith("float32")


def test_check_knows_the_token_of_a_user_who_has_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heddle.cli.config_check.find_downloaded", lambda *_: None)
    path = write_minilm_config(tmp_path)
    for token, said in (("hf_mine", "with a token"), (None, "without a token: public models only")):
        monkeypatch.setattr("huggingface_hub.get_token", lambda token=token: token)
        assert explained(path)["model"].endswith(f"will be downloaded {said}")
