"""Which versions, checkpoints and GPUs TensorRT-LLM serves, each refusal in one line, and which backend `auto`
chooses."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, LlamaModel

from engine_svc.backends.loading import check_loadable, choose_backend
from engine_svc.backends.tensorrt_llm import support
from engine_svc.backends.tensorrt_llm.backend import load_head
from engine_svc.backends.tensorrt_llm.support import Api, check_support, choose_api
from engine_svc.device import CPU, Device
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError
from tests.checkpoints import write_bert, write_json
from tests.engine_svc.backends.tensorrt_llm.conftest import UNSERVED, Install, write_embedder
from tests.engine_svc.backends.tensorrt_llm.fake_llm import Llm
from tests.engine_svc.gpus import A10G, A100, B200, H100, L4, T4
from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.hub_layout import change_config

AUTO, EXPLICIT = EngineSettings(backend="auto"), EngineSettings(backend="tensorrt_llm")


@pytest.fixture
def newest(install: Install) -> type[Llm]:
    return install("1.4.0rc1")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_embedder(tmp_path, LlamaModel)


def reason(folder: Path, settings: EngineSettings = EXPLICIT, device: Device = H100) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_support(settings, Checkpoint.read(folder), device)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize("case", UNSERVED, ids=lambda case: case.id)
def test_other_decoders_are_left_to_torch(tmp_path: Path, case: Case) -> None:
    case.write(tmp_path)
    assert "supported" in reason(tmp_path)
    assert choose_backend(AUTO, Checkpoint.read(tmp_path), H100) == "torch"


@pytest.mark.usefixtures("newest")
def test_encoders_are_left_to_torch(tmp_path: Path) -> None:
    write_bert(tmp_path, BertModel)
    assert reason(tmp_path) == "a bert is not supported (supported: llama, llama_bidirec, mistral, qwen2, qwen3)"


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"passes": 2}, "one pass at a time, not 2"),
        ({"dtype": "float32"}, "bfloat16 or float16, not in float32"),
        ({"adapter": "retrieval.query"}, "adapters are not supported"),
    ],
)
def test_an_unsupported_setting_is_refused(llama: Path, settings: dict[str, Any], words: str) -> None:
    assert words in reason(llama, EngineSettings(backend="tensorrt_llm", **settings))
    assert choose_backend(EngineSettings(backend="auto", **settings), Checkpoint.read(llama), H100) == "torch"


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act gelu is not supported"),
        ({"model_type": "mistral", "sliding_window": None, "attention_bias": True}, "attention_bias True"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary scaling dynamic"),
        ({"rope_parameters": None, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_a_config_that_tensorrt_llm_reads_differently_is_refused(
    llama: Path, config: dict[str, Any], words: str
) -> None:
    change_config(llama, **config)
    assert words in reason(llama)


@pytest.mark.usefixtures("newest")
def test_a_window_longer_than_every_sequence_is_accepted(tmp_path: Path) -> None:
    change_config(write_embedder(tmp_path, LlamaModel), model_type="mistral", sliding_window=64)
    check_support(EXPLICIT, Checkpoint.read(tmp_path), H100)


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize(
    ("algorithm", "device", "words"),
    [
        (None, A100, None),
        (None, T4, "it needs compute capability 8.0, not 7.5"),
        (None, CPU, "it needs an NVIDIA GPU"),
        ("FP8", L4, None),
        ("FP8", A10G, "FP8 in it needs compute capability 8.9, not 8.6"),
        ("NVFP4", B200, None),
        ("nvfp4", H100, "NVFP4 in it needs compute capability 10.0, not 9.0"),
        ("FP8_PB_WO", L4, "FP8_PB_WO in it needs compute capability 9.0"),
        ("W4A16_AWQ", H100, "quant_algo W4A16_AWQ is not supported (supported: FP8, FP8_PB_WO"),
    ],
)
def test_the_gpu_must_support_the_weights(
    llama: Path, algorithm: str | None, device: Device, words: str | None
) -> None:
    if algorithm is not None:
        write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": algorithm}})
    if words is None:
        check_support(EXPLICIT, Checkpoint.read(llama), device)
    else:
        assert words in reason(llama, device=device)


@pytest.mark.usefixtures("newest")
def test_quantized_weights_of_another_kind_are_refused(llama: Path) -> None:
    change_config(llama, quantization_config={"quant_method": "gptq"})
    assert reason(llama).endswith("quantized weights (gptq) without a hf_quant_config.json are not supported")


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize("added", ["_orig_mod.", "module."])
def test_weights_of_a_compiled_or_data_parallel_model_run_on_torch(llama: Path, added: str) -> None:
    path = llama / "model.safetensors"
    save_file({added + name: tensor for name, tensor in load_file(path).items()}, path)
    assert f"tensor {added}embed_tokens.weight should be named embed_tokens.weight" in reason(llama)
    checkpoint = Checkpoint.read(llama)
    assert choose_backend(AUTO, checkpoint, H100) == "torch"
    check_loadable(replace(AUTO, backend="torch"), checkpoint)


@pytest.mark.usefixtures("newest")
def test_quantized_weights_of_modelopt_are_loadable(llama: Path) -> None:
    """The check before the pod opens a port must not load FP8 weights into our own models, which cannot read them."""
    path = llama / "model.safetensors"
    weights = {
        name: tensor.to(torch.float8_e4m3fn) if name.endswith("_proj.weight") else tensor
        for name, tensor in load_file(path).items()
    }
    scales = {f"{name}_scale": torch.ones(1) for name in weights if name.endswith("_proj.weight")}
    save_file(weights | scales, path)
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    change_config(llama, quantization_config={"quant_method": "modelopt"})
    checkpoint = Checkpoint.read(llama)
    assert choose_backend(AUTO, checkpoint, H100) == "tensorrt_llm"
    check_loadable(EXPLICIT, checkpoint)
    assert load_head(checkpoint, torch.device("cpu"), torch.bfloat16).outputs


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize(
    ("stored", "asked", "words"),
    [
        (None, "fp8", "it does not quantize weights"),
        ("FP8", "fp4", "the weights are already FP8 and cannot become fp4"),
        ("FP8", "fp8", None),
    ],
)
def test_only_weights_that_are_already_quantized_are_served(
    llama: Path, stored: str | None, asked: Any, words: str | None
) -> None:
    if stored is not None:
        write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": stored}})
    settings = replace(EXPLICIT, quantization=asked)
    if words is None:
        check_support(settings, Checkpoint.read(llama), H100)
        return
    with pytest.raises(ConfigurationError, match=words):
        check_support(settings, Checkpoint.read(llama), H100)


def test_a_log_line_says_what_auto_has_chosen_and_why(
    llama: Path, install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine_svc.backends.loading")
    monkeypatch.setattr(support, "installed_version", lambda: None)
    assert choose_backend(AUTO, Checkpoint.read(llama), H100) == "torch"
    install("1.4.0rc1")
    assert choose_backend(AUTO, Checkpoint.read(llama), H100) == "tensorrt_llm"
    assert caplog.messages == [
        "backend auto: torch, not tensorrt_llm: tensorrt-llm is not installed (supported: 1.2, and 1.3.0rc22 to 1.4)",
        "backend auto: tensorrt_llm, which serves this checkpoint on this GPU",
    ]


def test_an_explicit_backend_is_not_replaced(llama: Path, newest: type[Llm]) -> None:
    assert choose_backend(EngineSettings(backend="torch"), Checkpoint.read(llama), H100) == "torch"
    with pytest.raises(ConfigurationError, match="backend tensorrt_llm: it needs an NVIDIA GPU"):
        choose_backend(EXPLICIT, Checkpoint.read(llama), CPU)
    assert not newest.made


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1", "1.2.1.post1"])
def test_stable_versions_generate(version: str) -> None:
    assert choose_api(version) is Api.GENERATE


@pytest.mark.parametrize("version", ["1.3.0rc22", "1.3.0rc29", "1.3.0", "1.4.0rc1", "1.4.0.rc4", "1.4.0", "1.4.2"])
def test_newer_versions_encode(version: str) -> None:
    assert choose_api(version) is Api.ENCODE


@pytest.mark.parametrize("version", ["0.21.0", "1.1.0", "1.2.0rc3", "1.3.0rc21", "1.5.0rc1", "2.0.0", "main"])
def test_other_versions_are_refused_with_the_supported_range(version: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose_api(version)
    assert str(caught.value) == f"tensorrt-llm {version} is not supported (supported: 1.2, and 1.3.0rc22 to 1.4)"
