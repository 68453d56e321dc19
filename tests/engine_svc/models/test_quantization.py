"""Which checkpoints and settings are quantized, and the one line that refuses the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from engine_svc.backends.loading import check_loadable
from engine_svc.models.model import Model
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert, write_json
from tests.engine_svc.models.cases import randomize, save
from tests.engine_svc.models.cases_of.decoders import SMALL
from tests.engine_svc.models.hub_layout import change_config


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(randomize(LlamaModel(LlamaConfig(**SMALL))), tmp_path)
    return tmp_path


def change_tensors(folder: Path, add: Mapping[str, Tensor], without: str = "") -> None:
    tensors = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name != without}
    save_file({**tensors, **add}, folder / "model.safetensors")


def refusal(folder: Path, quantization: Any = "no_quant") -> str:
    with pytest.raises(CheckpointError) as caught:
        check_loadable(EngineSettings(quantization=quantization), Checkpoint.read(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "method", ["awq", "gptq", "bitsandbytes", "compressed-tensors", "fp8", "mxfp4", "modelopt", "hqq", "torchao"]
)
@pytest.mark.parametrize("setting", ["no_quant", "fp8"])
def test_weights_that_another_tool_quantized_are_refused(llama: Path, method: str, setting: str) -> None:
    change_config(llama, quantization_config={"quant_method": method, "bits": 4})
    assert f"quantized weights ({method}) without a hf_quant_config.json are not supported" in refusal(llama, setting)


@pytest.mark.parametrize("ending", ["qweight", "weight_packed"])
def test_packed_weights_that_no_config_mentions_are_refused(llama: Path, ending: str) -> None:
    name = "layers.0.self_attn.q_proj"
    change_tensors(llama, {f"{name}.{ending}": torch.zeros(4, 32, dtype=torch.int32)}, without=f"{name}.weight")
    assert f"the weights of {name} are quantized in an unsupported way" in refusal(llama)


@pytest.mark.parametrize(
    ("algorithm", "named"),
    [
        ("MXFP8", "MXFP8"),
        ("FP8_PB_WO", "FP8_PB_WO"),
        ("W4A16_AWQ", "W4A16_AWQ"),
        ("NVFP4_AWQ", "NVFP4_AWQ"),
        (None, "none"),
    ],
)
def test_algorithms_of_modelopt_that_cannot_be_read_are_refused(llama: Path, algorithm: str | None, named: str) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": algorithm}})
    known = "(supported: FP8, FP8_PER_CHANNEL_PER_TOKEN, NVFP4)"
    assert f"hf_quant_config.json: quant_algo {named} is not supported {known}" in refusal(llama)


@pytest.mark.parametrize(("stored", "asked"), [("FP8", "fp4"), ("NVFP4", "fp8")])
def test_quantized_weights_cannot_become_others(llama: Path, stored: str, asked: str) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": stored}})
    assert f"the weights are already {stored} and cannot become {asked}" in refusal(llama, asked)


def test_linears_that_run_as_one_must_be_quantized_alike(llama: Path) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    change_tensors(llama, {"layers.0.self_attn.v_proj.weight_scale": torch.ones(1)})
    assert "only some of layers.0.self_attn.q_proj, " in refusal(llama)


def test_stored_weights_must_be_of_the_type_that_is_stated(llama: Path) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    change_tensors(llama, {"layers.0.self_attn.o_proj.weight_scale": torch.ones(1)})
    assert "layers.0.self_attn.o_proj.weight is F32, expected F8_E4M3" in refusal(llama)


@pytest.mark.parametrize("shape", [[2], [31, 1], [32, 2]])
def test_scales_must_be_one_or_one_for_each_output(llama: Path, shape: list[int]) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    name = "layers.0.self_attn.o_proj"
    weight = torch.zeros(32, 32, dtype=torch.float8_e4m3fn)
    change_tensors(llama, {f"{name}.weight": weight, f"{name}.weight_scale": torch.ones(shape)})
    assert f"{name}.weight_scale has shape {shape}, expected [32]" in refusal(llama)


def test_encoders_are_not_quantized(tmp_path: Path) -> None:
    write_bert(tmp_path)
    assert "--quantization fp8 is for decoders, not for bert (supported: llama," in refusal(tmp_path, "fp8")


@pytest.mark.parametrize("setting", ["no_quant", "fp8", "fp4"])
def test_decoders_are_checked_without_their_weights(llama: Path, setting: Any) -> None:
    check_loadable(EngineSettings(quantization=setting), Checkpoint.read(llama))


def test_scales_that_are_not_used_are_not_listed(llama: Path) -> None:
    change_tensors(
        llama, {f"layers.0.self_attn.{name}": torch.ones(1) for name in ("q_proj.input_scale", "k_proj.k_scale")}
    )
    assert not Model.load(Checkpoint.read(llama), dtype=torch.float32, device=torch.device("meta")).unused
