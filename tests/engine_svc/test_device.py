"""Which device a pod takes, which models each GPU of BEI's table serves, and in which number format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from engine_svc.device import CPU, Device, check_gpu, choose_data_type, find_device, warn_of_widening
from engine_svc.models import onednn
from engine_svc.models.quantization import SCHEMES
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.quantization import NO_QUANT
from heddle.rpc.settings import ConfigurationError
from tests.engine_svc.gpus import A10G, A100, B200, H100, H200, L4, T4, V100, install_gpus


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_a_gpu_a_pod_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    install_gpus(monkeypatch)
    assert find_device(wanted) == CPU


@pytest.mark.parametrize(
    ("wanted", "device"), [("auto", T4), ("cuda", T4), ("cuda:0", T4), ("cuda:1", replace(L4, index=1)), ("cpu", CPU)]
)
def test_a_gpu_is_described_by_torch(monkeypatch: pytest.MonkeyPatch, wanted: str, device: object) -> None:
    install_gpus(monkeypatch, T4, L4)
    assert find_device(wanted) == device


@pytest.mark.parametrize(("gpus", "seen"), [(0, "no GPU"), (1, "1 GPU"), (2, "2 GPUs")])
def test_a_missing_gpu_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, gpus: int, seen: str) -> None:
    install_gpus(monkeypatch, *[T4] * gpus)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ConfigurationError) as caught:
        find_device("cuda:3")
    assert str(caught.value) == f"device cuda:3: PyTorch sees {seen}"


def test_a_torch_without_cuda_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    install_gpus(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigurationError, match=r"^device cuda: PyTorch \S+ is built without CUDA$"):
        find_device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""])
def test_a_malformed_device_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, not"):
        EngineSettings(device=device)


P100 = Device("cuda", 0, "Tesla P100", (6, 0), 16 << 30)

ALL_MODELS = (A100, A10G, L4, H100, H200, B200)
BIDIRECTIONAL_ONLY = (V100, T4)

# Bidirectional models, which BEI-Bert serves, and causal ones, which BEI serves.
BIDIRECTIONAL: tuple[dict[str, Any], ...] = (
    {"model_type": "bert"},
    {"model_type": "modernbert"},
    {"model_type": "deberta-v2"},
    {"model_type": "nomic_bert"},
    {"model_type": "llama_bidirec"},
    {"model_type": "gemma3_text", "use_bidirectional_attention": True},
)
CAUSAL: tuple[dict[str, Any], ...] = tuple({"model_type": name} for name in ("llama", "mistral", "qwen3", "gemma2"))


def make_checkpoint(config: dict[str, Any], kind: ModelKind = ModelKind.EMBEDDER) -> Checkpoint:
    """Has only what the checks read."""
    described = SimpleNamespace(config=config, kind=kind, architecture="SomeModel", folder=Path("/m"), name="m")
    return cast("Checkpoint", described)


def logged(caplog: pytest.LogCaptureFixture, device: Device, *, dtype: str = "auto") -> list[str]:
    caplog.clear()
    check_gpu(device, make_checkpoint({"model_type": "bert"}), dtype)
    return caplog.messages


@pytest.mark.parametrize("device", [*ALL_MODELS, CPU], ids=str)
def test_gpus_since_ampere_serve_all_models(device: Device) -> None:
    for config in (*BIDIRECTIONAL, *CAUSAL):
        check_gpu(device, make_checkpoint(config), "auto")


@pytest.mark.parametrize("device", BIDIRECTIONAL_ONLY, ids=str)
def test_older_gpus_serve_bidirectional_models_only(device: Device) -> None:
    for config in BIDIRECTIONAL:
        check_gpu(device, make_checkpoint(config), "auto")
    for config in CAUSAL:
        with pytest.raises(ConfigurationError, match="only models with bidirectional attention") as caught:
            check_gpu(device, make_checkpoint(config), "auto")
        assert "\n" not in str(caught.value)


def test_a_refusal_names_the_gpu_and_what_the_model_needs() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_gpu(T4, make_checkpoint({"model_type": "qwen3"}), "auto")
    assert str(caught.value) == (
        "Tesla T4 (compute capability 7.5) serves only models with bidirectional attention, such as BERT; SomeModel "
        "needs compute capability 8.0 (A100, A10G, L4, H100)"
    )


@pytest.mark.parametrize(
    ("device", "native"),
    [
        *((device, ()) for device in (A100, A10G, CPU)),
        *((device, ("fp8",)) for device in (L4, H200)),
        (B200, ("fp8", "fp4")),
    ],
    ids=str,
)
def test_a_quantization_that_saves_no_time_logs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: Device, native: Sequence[str]
) -> None:
    monkeypatch.setattr(onednn, "has_int8_products", lambda _: False)
    for setting in SCHEMES:
        caplog.clear()
        warn_of_widening(device, setting)
        needed = {"fp8": "a GPU of compute capability 8.9", "fp4": "a GPU of compute capability 10.0"}.get(setting[:3])
        numbers = setting[:3] if needed else "int8"
        expected = (
            f"{device} does not multiply {numbers}, which needs {needed or 'a CPU with VNNI'}: --quantization "
            f"{setting} saves memory, not time"
        )
        assert caplog.messages == ([] if numbers in native else [expected])


def test_int8_on_a_cpu_that_multiplies_it_logs_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onednn, "has_int8_products", lambda device: device.type == "cpu")
    for setting in (NO_QUANT, "weights_int8", "smooth_quant"):
        warn_of_widening(CPU, setting)
    assert not caplog.messages


def test_emulated_bfloat16_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = logged(caplog, T4, dtype="bfloat16")
    assert "emulates bfloat16" in line
    assert not logged(caplog, T4, dtype="float16")
    assert not logged(caplog, A100, dtype="bfloat16")


def test_a_gpu_without_tensor_cores_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, P100)
    assert not logged(caplog, V100)


def test_a_gpu_that_torch_is_not_built_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_gpus(monkeypatch, V100, built_for=["sm_75", "sm_80", "sm_90", "sm_100", "compute_120"])
    with pytest.raises(ConfigurationError, match=r"^Tesla V100.* older than PyTorch .* supports \(7\.5\)$"):
        check_gpu(V100, make_checkpoint({"model_type": "bert"}), "auto")
    for device in (T4, H100, B200):
        check_gpu(device, make_checkpoint({"model_type": "bert"}), "auto")


@pytest.mark.parametrize(
    ("device", "data_type"),
    [*((device, "bfloat16") for device in ALL_MODELS), (V100, "float16"), (T4, "float16"), (P100, "float32")],
    ids=str,
)
@pytest.mark.parametrize("kind", ModelKind)
def test_a_gpu_computes_every_kind_in_its_fast_data_type(device: Device, data_type: str, kind: ModelKind) -> None:
    assert choose_data_type(device, make_checkpoint({"model_type": "bert"}, kind)) == data_type


def test_gemma_is_not_computed_in_float16(caplog: pytest.LogCaptureFixture) -> None:
    gemma = make_checkpoint({"model_type": "gemma3_text", "use_bidirectional_attention": True})
    assert choose_data_type(T4, gemma) == "float32"
    assert caplog.messages == ["SomeModel overflows in float16: computing in float32, which is slower"]
    assert choose_data_type(A100, gemma) == "bfloat16"


def test_a_cpu_uses_bfloat16_only_for_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    vectors = {ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER}
    for kind in ModelKind:
        expected = "bfloat16" if kind in vectors else "float32"
        assert choose_data_type(CPU, make_checkpoint({"model_type": "bert"}, kind)) == expected
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_data_type(CPU, make_checkpoint({"model_type": "bert"})) == "float32"
