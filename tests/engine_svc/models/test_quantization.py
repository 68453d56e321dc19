"""Which checkpoints and settings are quantized, and the one line that refuses the others."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from engine_svc.backends.loading import check_loadable
from engine_svc.models.model import Model
from engine_svc.models.quantization import SCHEMES, find_quantization, is_attention
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.cli.serve_settings import ServeSettings
from heddle.quantization import NO_QUANT
from heddle.rpc.settings import ConfigurationError
from tests.checkpoints import write_bert, write_json
from tests.engine_svc.gpus import L4, install_gpus
from tests.engine_svc.models.cases import Case, randomize, save
from tests.engine_svc.models.cases_of.all import CASES
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
    known = "(supported: FP8, FP8_PER_CHANNEL_PER_TOKEN, NVFP4, W8A16, W8A8_SQ_PER_CHANNEL)"
    assert f"hf_quant_config.json: quant_algo {named} is not supported {known}" in refusal(llama)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [("FP8", "fp4"), ("NVFP4", "fp8_kv"), ("W8A16", "smooth_quant"), ("W8A8_SQ_PER_CHANNEL", "fp8")],
)
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


@pytest.mark.parametrize("setting", ["fp8", "fp8_mlp_only", "fp4", "fp4_kv"])
def test_encoders_are_quantized_in_int8_only(tmp_path: Path, setting: Any) -> None:
    write_bert(tmp_path)
    words = refusal(tmp_path, setting)
    assert f"--quantization {setting} is for decoders, not for bert (supported: llama," in words
    assert words.endswith("; for encoders on a CPU: weights_int8, smooth_quant)")
    check_loadable(EngineSettings(quantization="weights_int8", device="cpu"), Checkpoint.read(tmp_path))


def test_encoders_are_not_quantized_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bert(tmp_path)
    install_gpus(monkeypatch, L4)
    expected = "--quantization weights_int8 is for decoders, not for bert on a GPU; leave it out, or add --device cpu"
    assert expected in refusal(tmp_path, "weights_int8")


def test_loading_refuses_to_quantize_without_calibration(llama: Path) -> None:
    expected = "smooth_quant depends on calibration; make a build with `heddle build --model MODEL --quantization"
    assert expected in refusal(llama, "smooth_quant")


@pytest.mark.parametrize("setting", ["weights_int4", "weights_kv_int8", "weights_int4_kv_int8", "int8"])
def test_unsupported_quantizations_are_refused_with_a_list_of_supported_ones(llama: Path, setting: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_quantization(Checkpoint.read(llama), setting)
    assert str(caught.value) == (
        f"quantization {setting} is not supported (supported: no_quant, fp8, fp8_kv, fp8_mlp_only, fp4, fp4_kv, "
        "fp4_mlp_only, weights_int8, smooth_quant)"
    )


def test_the_settings_offer_all_types() -> None:
    for settings in (EngineSettings, ServeSettings):
        assert get_args(get_type_hints(settings)["quantization"]) == (NO_QUANT, *SCHEMES)


@pytest.mark.parametrize(
    ("setting", "stored", "is_told"),
    [("fp8_kv", None, True), ("fp8", "FP8", True), ("fp8", None, False), ("no_quant", "FP8", True)],
)
def test_quantization_of_the_cache_is_logged_as_without_effect_once(
    llama: Path, caplog: pytest.LogCaptureFixture, setting: Any, stored: str | None, is_told: bool
) -> None:
    if stored:
        content = {"quant_algo": "FP8", "kv_cache_quant_algo": stored}
        write_json(llama / "hf_quant_config.json", {"quantization": content})
    caplog.set_level(logging.INFO)
    check_loadable(EngineSettings(quantization=setting), Checkpoint.read(llama))
    assert len([line for line in caplog.messages if "keys and values has no effect" in line]) == is_told


@pytest.mark.parametrize(
    "case", {case.architecture: case for case in CASES}.values(), ids=lambda case: case.architecture
)
def test_attention_linears_are_recognised_by_name(case: Case, tmp_path: Path) -> None:
    """Checks every architecture that the engine loads."""
    case.write(tmp_path)
    names_of: dict[int, Sequence[str]] = {}

    def observe(names: Sequence[str], linear: Any) -> Any:
        names_of[id(linear)] = names
        return linear

    checkpoint, meta = Checkpoint.read(tmp_path), torch.device("meta")
    model = Model.load(checkpoint, dtype=torch.float32, device=meta, adapter=case.adapter, observe=observe)
    layers = [layer.attention for layer in model.transformer.layers]
    of_attention = {name for layer in layers for name in (*names_of[id(layer.qkv_proj)], *names_of[id(layer.o_proj)])}
    names = {name for names in names_of.values() for name in names}
    assert {name for name in names if is_attention(name)} == of_attention
    assert of_attention < names


def store_fp8(folder: Path, name: str) -> None:
    """Zeros in the format of ModelOpt."""
    shape = load_file(folder / "model.safetensors")[f"{name}.weight"].shape
    weight = torch.zeros(shape, dtype=torch.float8_e4m3fn)
    change_tensors(folder, {f"{name}.weight": weight, f"{name}.weight_scale": torch.ones(1)})


@pytest.mark.parametrize("pattern", ["*o_proj", "layers.0*", "model.layers.0.self_attn.*"])
def test_a_quantized_module_in_exclude_modules_is_refused(llama: Path, pattern: str) -> None:
    stated = {"quant_algo": "FP8", "exclude_modules": ["lm_head", pattern]}
    write_json(llama / "hf_quant_config.json", {"quantization": stated})
    store_fp8(llama, "layers.0.self_attn.o_proj")
    assert "layers.0.self_attn.o_proj is quantized, but" in refusal(llama)


def test_patterns_that_match_no_quantized_module_are_accepted(llama: Path) -> None:
    stated = {"quant_algo": "FP8", "exclude_modules": ["lm_head", "layers.1*", "model.layers.0.self_attn.q_proj"]}
    write_json(llama / "hf_quant_config.json", {"quantization": stated})
    store_fp8(llama, "layers.0.self_attn.o_proj")
    check_loadable(EngineSettings(), Checkpoint.read(llama))


def test_stored_quantized_attention_contradicts_mlp_only(llama: Path) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    store_fp8(llama, "layers.0.self_attn.o_proj")
    expected = "layers.0.self_attn.o_proj is quantized, but attention should not be quantized"
    assert expected in refusal(llama, "fp8_mlp_only")


def test_fused_linears_must_have_equal_smoothing(llama: Path) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "W8A8_SQ_PER_CHANNEL"}})
    for part, smoothing in {"q": 1.0, "k": 1.0, "v": 2.0}.items():
        name = f"layers.0.self_attn.{part}_proj"
        outputs, inputs = load_file(llama / "model.safetensors")[f"{name}.weight"].shape
        own = {"weight": torch.zeros(outputs, inputs, dtype=torch.int8), "weight_scale": torch.ones(outputs)}
        own["pre_quant_scale"] = torch.full([inputs], smoothing)
        change_tensors(llama, {f"{name}.{kind}": tensor for kind, tensor in own.items()})
    with pytest.raises(CheckpointError, match=r"q_proj.pre_quant_scale differs from that of a linear on the same"):
        Model.load(Checkpoint.read(llama), dtype=torch.float32, device=torch.device("cpu"))


def test_smoothing_of_fp8_weights_is_refused(llama: Path) -> None:
    write_json(llama / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    store_fp8(llama, "layers.0.self_attn.o_proj")
    change_tensors(llama, {"layers.0.self_attn.o_proj.pre_quant_scale": torch.ones(32)})
    assert "o_proj.pre_quant_scale is supported only with weights in int8" in refusal(llama)


@pytest.mark.parametrize("setting", ["no_quant", *(name for name in SCHEMES if name != "smooth_quant")])
def test_decoders_are_checked_without_their_weights(llama: Path, setting: Any) -> None:
    check_loadable(EngineSettings(quantization=setting), Checkpoint.read(llama))


def test_scales_that_are_not_used_are_not_listed(llama: Path) -> None:
    change_tensors(
        llama, {f"layers.0.self_attn.{name}": torch.ones(1) for name in ("q_proj.input_scale", "k_proj.k_scale")}
    )
    assert not Model.load(Checkpoint.read(llama), dtype=torch.float32, device=torch.device("meta")).unused
