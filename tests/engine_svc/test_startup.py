"""How an engine pod resolves its settings on its device: passes, cores, batches, GPUs and number formats."""

import logging
from typing import Any

import pytest

from engine_svc import startup
from engine_svc.device import CPU, Device, find_device
from engine_svc.settings import EngineSettings
from engine_svc.startup import choose_concurrency, hide_other_gpus, make_limits, resolve_number_format
from heddle import machine
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate
from heddle.rpc.settings import ConfigurationError
from tests.engine_svc.gpus import H100, T4, install_gpus


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "usable_cores", lambda: 16)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("settings", "passes_and_cores"),
    [
        (EngineSettings(), (8, 16)),
        (EngineSettings(threads=2), (2, 2)),
        (EngineSettings(threads=1), (1, 1)),
        (EngineSettings(passes=3), (3, 16)),
        (EngineSettings(threads=2, passes=4), (2, 2)),
        (EngineSettings(backend="simulated"), (1, 16)),
        (EngineSettings(backend="simulated", threads=1, passes=2), (2, 2)),
    ],
)
def test_passes_never_have_less_than_a_core(settings: EngineSettings, passes_and_cores: tuple[int, int]) -> None:
    assert choose_concurrency(settings, CPU) == passes_and_cores


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("settings", "passes_and_cores"),
    [
        (EngineSettings(), (2, 16)),
        (EngineSettings(threads=1), (2, 2)),
        (EngineSettings(passes=1), (1, 16)),
        (EngineSettings(backend="tensorrt_llm"), (1, 16)),
    ],
)
def test_two_passes_are_in_flight_on_a_gpu_however_few_the_cores(
    settings: EngineSettings, passes_and_cores: tuple[int, int]
) -> None:
    assert choose_concurrency(settings, H100) == passes_and_cores


@pytest.mark.parametrize(("device", "tokens"), [(CPU, 512), (H100, 16_384)], ids=str)
def test_the_size_of_a_batch_depends_on_the_device(device: Device, tokens: int) -> None:
    assert make_limits(EngineSettings(), device).batch_tokens_max == tokens
    assert make_limits(EngineSettings(batch_tokens_max=64), device).batch_tokens_max == 64


@pytest.mark.parametrize(
    ("wanted", "visible", "device", "left"),
    [
        ("cuda:1", "0,3", "cuda", "3"),
        ("cuda:1", "MIG-a,MIG-b", "cuda", "MIG-b"),
        ("cuda:1", None, "cuda", "1"),
        ("cuda:9", "0,3", "cuda:9", "0,3"),
        ("cuda", "0,3", "cuda", "0,3"),
        ("auto", None, "auto", None),
        ("cpu", "0,3", "cpu", "0,3"),
    ],
)
def test_a_pod_on_one_of_several_gpus_sees_no_other(
    monkeypatch: pytest.MonkeyPatch, wanted: str, visible: str | None, device: str, left: str | None
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(machine, "count_gpus", lambda: 4)
    assert hide_other_gpus(EngineSettings(device=wanted), environment).device == device
    assert environment.get("CUDA_VISIBLE_DEVICES") == left


@pytest.fixture
def minilm() -> Checkpoint:
    return Checkpoint.read(locate("all-MiniLM-L6-v2"))


def test_auto_is_resolved_to_the_device_and_data_type_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, minilm: Checkpoint
) -> None:
    install_gpus(monkeypatch, T4)
    settings = resolve_number_format(EngineSettings(), minilm, find_device("auto"))
    assert (settings.device, settings.dtype) == ("cuda:0", "float16")
    assert resolve_number_format(EngineSettings(dtype="float32"), minilm, find_device("auto")).dtype == "float32"


@pytest.mark.parametrize(
    ("quantization", "end"), [("no_quant", "in float32"), ("fp8", "in float32, with weights in fp8")]
)
def test_a_log_line_names_the_device_and_the_number_format(
    caplog: pytest.LogCaptureFixture, minilm: Checkpoint, quantization: Any, end: str
) -> None:
    caplog.set_level(logging.INFO, "engine_svc")
    resolve_number_format(EngineSettings(dtype="float32", quantization=quantization), minilm, CPU)
    assert caplog.messages[-1] == f"{minilm.name} computes on the CPU {end}"


def test_a_pod_does_not_start_if_its_model_does_not_fit_the_gpu(
    monkeypatch: pytest.MonkeyPatch, minilm: Checkpoint
) -> None:
    install_gpus(monkeypatch, T4, free_bytes=100 << 20)
    with pytest.raises(ConfigurationError, match="does not fit into the memory of Tesla T4"):
        resolve_number_format(EngineSettings(), minilm, T4)
    simulated = EngineSettings(backend="simulated")
    assert resolve_number_format(simulated, minilm, CPU) is simulated
