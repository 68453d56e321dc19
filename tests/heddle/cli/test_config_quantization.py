"""`heddle config check` on typical configurations: its whole output, and what it reports about quantization on other
hardware."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine_svc.device import CPU, Device
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from heddle.cli import main
from heddle.cli.config_check import explain, resolve_services
from heddle.cli.config_command import configure_serve
from tests.checkpoints import write_json
from tests.heddle.config.configs import BUILD, EXAMPLES, SEED, load
from tests.kinds import write_classifier, write_config, write_reranker, write_token_classifier

CALIBRATION = f"{BUILD}.quantization_config"

WIDENED = "so weights are widened when they are used"
VNNI = "avx512f avx512_vnni"
H100 = Device("cuda", 0, "H100", (9, 0))
B200 = Device("cuda", 0, "B200", (10, 0))
IN_FP8 = "the engine on H100 (compute capability 9.0) multiplies fp8"
NO_INT8 = f"the engine on H100 (compute capability 9.0) does not multiply int8, {WIDENED}"
NO_FP4 = f"to save memory: the engine on H100 (compute capability 9.0) does not multiply fp4, {WIDENED}"


def write_decoder(folder: Path) -> Path:
    return write_config(folder, "Qwen3Model", (), model_type="qwen3")


def write_decoder_reranker(folder: Path) -> Path:
    return write_config(folder, "Qwen3ForSequenceClassification", ("LABEL_0",), model_type="qwen3")


def write_embedder(_: Path) -> Path:
    return locate(PACKAGED_NAME, with_weights=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Fakes the device, the flags of the CPU, and a model in the hub's cache."""

    def make(device: Device = CPU, flags: str = "avx512f", model: Path | None = None) -> None:
        info = tmp_path / "cpuinfo"
        info.write_text(f"flags : fpu {flags}\n")
        monkeypatch.setattr("heddle.cli.config_quantization.CPU_INFO", info)
        monkeypatch.setattr("heddle.cli.config_command.visible_gpus", lambda _: ("0",) * (device.kind == "cuda"))
        monkeypatch.setattr("heddle.cli.config_check.is_installed", lambda _: False)
        monkeypatch.setattr("heddle.cli.config_check.find_downloaded", lambda *_: model)
        monkeypatch.setattr("heddle.cli.config_check.has_weights", lambda _: True)
        monkeypatch.setattr("engine_svc.device.find_device", lambda wanted: CPU if wanted == "cpu" else device)

    return make


def explained(path: Path, *flags: str) -> dict[str, str]:
    configured = configure_serve(path, flags, {})
    lines = explain(configured, resolve_services(configured.environ)).splitlines()
    assert lines[0] == f"{path} is valid. `heddle serve {path}` would run:"
    return {line[:15].strip(): line[15:] for line in lines[1:] if not line.startswith("  ")}


ALWAYS = {
    "engine": "torch: base_model encoder would take TensorRT-LLM, which needs an NVIDIA GPU",
    "device": "the CPU",
    "dtype": "float32: this CPU does not multiply bfloat16",
    "quantization": "none: weights stay as the checkpoint stores them",
    "build": "none needed: the checkpoint is loaded as it is",
    "calibration": "none needed",
    "batches": "at most 512 tokens and 1024 texts a forward pass: on a CPU a pass of 16384 would only take longer",
    "texts": "up to 256 tokens; longer ones are cut unless a request says otherwise",
}
FP8 = {
    "quantization": f"fp8 for all linears, to save memory: this CPU does not multiply fp8, {WIDENED}",
    "build": "none needed: it is quantized while it is loaded",
}
ON_H100 = "the CPU (resources.accelerator H100_40GB is not looked for: Heddle takes what is here)"
IN_40960 = ALWAYS["batches"].replace("16384", "40960")


def here(name: str, described: str) -> str:
    return f"{name} of the Hugging Face hub, which is on this machine ({described})"


@pytest.mark.parametrize(
    ("path", "write", "expected"),
    [
        (
            SEED / "embedding.yaml",
            write_embedder,
            {
                "model": here("BAAI/bge-large-en-v1.5", "BertModel, an embedder"),
                "batches": "at most 512 tokens and 1024 texts a forward pass",
                "default route": "/v1/embeddings, because the model is an embedder",
            },
        ),
        (
            SEED / "reranking.yaml",
            write_reranker,
            {
                "model": here("BAAI/bge-reranker-v2-m3", "BertForSequenceClassification, a reranker"),
                "default route": "/rerank, as stated",
            },
        ),
        (
            SEED / "classification.yaml",
            write_classifier,
            {
                "model": here(
                    "papluca/xlm-roberta-base-language-detection", "BertForSequenceClassification, a classifier"
                ),
                "batches": "at most 512 tokens and 1024 texts a forward pass",
                "default route": "/predict, as stated",
            },
        ),
        (
            SEED / "entities.yaml",
            write_token_classifier,
            {
                "model": here("baseten-admin/bert-base-ner-uncased", "BertForTokenClassification, a token classifier"),
                "engine": "torch, because of base_model encoder_bert",
                "default route": "/predict_tokens, as stated",
            },
        ),
        (
            SEED / "key_options.yaml",
            write_decoder,
            {
                **FP8,
                "model": here("model-repo-name", "Qwen3Model, an embedder"),
                "default route": "/v1/embeddings, as stated",
            },
        ),
        (
            EXAMPLES / "qwen3_embedding.yaml",
            write_decoder,
            {
                **FP8,
                "model": here("michaelfeil/Qwen3-Embedding-8B-auto", "Qwen3Model, an embedder"),
                "device": ON_H100,
                "batches": IN_40960,
                "default route": "/v1/embeddings, as stated",
            },
        ),
        (
            EXAMPLES / "qwen3_reranker.yaml",
            write_decoder_reranker,
            {
                **FP8,
                "model": here("michaelfeil/Qwen3-Reranker-8B-seq", "Qwen3ForSequenceClassification, a reranker"),
                "device": ON_H100,
                "batches": IN_40960,
                "default route": "/predict, as stated",
            },
        ),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_the_whole_output_for_typical_configurations(
    tmp_path: Path,
    machine: Callable[..., None],
    path: Path,
    write: Callable[[Path], Path],
    expected: Mapping[str, str],
) -> None:
    machine(model=write(tmp_path / "model"))
    topics = explained(path)
    topics.pop("without effect here:"[:15].strip(), None)
    assert topics == {**ALWAYS, **expected}


@pytest.mark.parametrize(
    ("quantization", "hardware", "said"),
    [
        ("fp8", (H100,), f"all linears: {IN_FP8}"),
        ("fp8_kv", (H100,), f"all linears: {IN_FP8}; the engine keeps no cache of keys and values, which _kv is for"),
        ("fp4", (B200,), "all linears: the engine on B200 (compute capability 10.0) multiplies fp4"),
        ("fp4_mlp_only", (H100,), f"the linears of MLPs, not of attention, {NO_FP4}"),
        ("smooth_quant", (H100,), f"all linears, to save memory: {NO_INT8}"),
        ("weights_int8", (CPU, VNNI), "all linears: this CPU multiplies int8"),
        ("weights_int8", (CPU,), f"all linears, to save memory: this CPU does not multiply int8, {WIDENED}"),
    ],
)
def test_check_says_whether_the_hardware_multiplies_the_format(
    tmp_path: Path, machine: Callable[..., None], quantization: str, hardware: tuple[Any, ...], said: str
) -> None:
    machine(*hardware)
    path = load(tmp_path, {f"{BUILD}.quantization_type": quantization}).path
    assert explained(path)["quantization"] == f"{quantization} for {said}"


def test_device_cpu_is_respected_on_a_machine_with_a_gpu(tmp_path: Path, machine: Callable[..., None]) -> None:
    machine(H100, VNNI)
    path = load(tmp_path, {f"{BUILD}.quantization_type": "weights_int8"}).path
    assert explained(path, "--device", "cpu")["quantization"].endswith(": this CPU multiplies int8")


@pytest.mark.parametrize("quantization", ["fp8_kv", "fp4_kv", "smooth_quant"])
def test_quantization_that_needs_calibration_is_built_once(
    tmp_path: Path, machine: Callable[..., None], quantization: str
) -> None:
    fields: dict[str, Any] = {f"{BUILD}.quantization_type": quantization, f"{BUILD}.num_builder_gpus": 2}
    fields |= {f"{CALIBRATION}.calib_size": 256, f"{CALIBRATION}.calib_max_seq_length": 512}
    path = load(tmp_path, fields).path
    machine()
    topics = explained(path)
    assert topics["build"] == (
        f"made once, then taken from the cache: {quantization} needs calibration; calibrated on the CPU, not the 2 "
        "GPUs that num_builder_gpus asks for"
    )
    assert topics["calibration"] == (
        "on at most 256 of Heddle's own texts, each cut to 512 tokens; calib_dataset is not downloaded"
    )
    machine(H100)
    assert explained(path)["build"].endswith("; calibrated on 1 of the 2 GPUs that num_builder_gpus asks for")
    unset = load(tmp_path, {f"{BUILD}.quantization_type": quantization}).path
    assert explained(unset)["build"].endswith("; calibrated on the CPU")
    assert explained(unset)["calibration"].startswith("on at most 1024 of Heddle's own texts, each cut to 1536 tokens")


def test_quantized_checkpoints_are_loaded_without_a_build(
    tmp_path: Path, machine: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    machine(model=write_decoder(tmp_path / "model"))
    stored = {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "kv_cache_quant_algo": "FP8"}
    write_json(tmp_path / "model" / "hf_quant_config.json", {"quantization": stored})
    for quantization in ("no_quant", "fp8"):
        topics = explained(load(tmp_path, {f"{BUILD}.quantization_type": quantization}).path)
        assert topics["quantization"] == (
            f"FP8_PER_CHANNEL_PER_TOKEN, as the checkpoint stores it, to save memory: this CPU does not multiply "
            f"fp8, {WIDENED}; the engine keeps no cache of keys and values"
        )
        assert topics["build"] == "none needed: the checkpoint is loaded as it is"
    path = load(tmp_path, {f"{BUILD}.quantization_type": "fp4"}).path
    assert main.main(["config", "check", str(path)], {}) == 2
    assert capsys.readouterr().err.endswith("are already FP8_PER_CHANNEL_PER_TOKEN and cannot become fp4\n")


def test_a_build_comes_from_the_store_or_is_published(tmp_path: Path, machine: Callable[..., None]) -> None:
    machine()
    path = load(tmp_path, {}).path
    flags = ("--store", str(tmp_path / "store"))
    assert explained(path, *flags)["build"] == f"that of {tmp_path}/store, or made once, then taken from the cache"
    assert explained(path, *flags, "--publish")["build"] == (
        f"that of {tmp_path}/store, or made once and published there, then taken from the cache"
    )
    assert explained(path, *flags)["calibration"] == "none needed"
    plain = explained(load(tmp_path, {f"{BUILD}.quantization_type": "fp8"}).path, *flags)
    assert (plain["build"], plain["calibration"]) == (explained(path, *flags)["build"], "none needed")
    scaled = explained(load(tmp_path, {f"{BUILD}.quantization_type": "fp4"}).path, *flags)
    assert scaled["build"].endswith("; calibrated on the CPU")
    assert scaled["calibration"].startswith("on at most 1024 of")


def test_a_build_in_the_cache_is_not_made_again(
    tmp_path: Path, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    monkeypatch.setattr("heddle.artifacts.artifact_cache.ArtifactCache.find", lambda *_: tmp_path)
    path = load(tmp_path, {f"{BUILD}.quantization_type": "fp8_kv"}).path
    assert explained(path)["build"] == "the one in the cache: fp8_kv needs calibration"


def test_the_operators_texts_are_used_for_calibration(tmp_path: Path, machine: Callable[..., None]) -> None:
    machine()
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"text {index}" for index in range(32)))
    variables = {"HEDDLE_BUILD_CALIBRATION_TEXTS": str(texts)}
    path = load(tmp_path, {f"{BUILD}.quantization_type": "fp8_kv", "environment_variables": variables}).path
    assert explained(path)["calibration"].startswith(f"on at most 1024 of the lines of {texts}, ")
