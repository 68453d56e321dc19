"""Weights in ModelOpt's layouts: names, types, shapes and shared scales."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine_svc.build.calibration import Calibration
from engine_svc.build.quantizer import FOR_ENCODERS, RECIPES, make_quantizer, needs_calibration
from engine_svc.models.quantization import SCHEMES
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from heddle.rpc.settings import ConfigurationError
from tests.checkpoints import write_json
from tests.engine_svc.build.quantized_folders import quantize
from tests.engine_svc.models.trained_like import DECODERS, write_decoder

LAYER = "layers.0"
HIDDEN, INTERMEDIATE, KV = 128, 256, 64

F32, U8, I8, F8 = torch.float32, torch.uint8, torch.int8, torch.float8_e4m3fn

# Layouts of `mlp.down_proj`. Written by modelopt/torch/export/unified_export_hf.py (`_export_quantized_weight`) and
# quant_utils.py (`get_weight_scaling_factor`, `to_quantized_weight`) of NVIDIA/Model-Optimizer at commit a2fbac7ba.
# Read by `FP8RowwiseLinearMethod` and `NVFP4LinearMethod` in tensorrt_llm/_torch/modules/linear.py. A published file
# with NVFP4 and `pre_quant_scale` has U8 [5120, 12800] for `down_proj.weight` of 25600 inputs, F8_E4M3 `weight_scale`
# with one value for 16 inputs, and BF16 [25600] for `down_proj.pre_quant_scale`.
LAYOUTS: dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]] = {
    "fp8": {"weight": (F8, (HIDDEN, INTERMEDIATE)), "weight_scale": (F32, (HIDDEN,))},
    "fp4": {
        "weight": (U8, (HIDDEN, INTERMEDIATE // 2)),
        "weight_scale": (F8, (HIDDEN, INTERMEDIATE // 16)),
        "weight_scale_2": (F32, ()),
        "input_scale": (F32, ()),
    },
    "weights_int8": {"weight": (I8, (HIDDEN, INTERMEDIATE)), "weight_scale": (F32, (HIDDEN,))},
    "smooth_quant": {
        "weight": (I8, (HIDDEN, INTERMEDIATE)),
        "weight_scale": (F32, (HIDDEN,)),
        "pre_quant_scale": (F32, (INTERMEDIATE,)),
        "input_scale": (F32, ()),
    },
}
# `process_layer_quant_config` in modelopt/torch/export/quant_utils.py.
ALGORITHMS = {
    "fp8": ("FP8_PER_CHANNEL_PER_TOKEN", None),
    "fp8_kv": ("FP8_PER_CHANNEL_PER_TOKEN", "FP8"),
    "fp8_mlp_only": ("FP8_PER_CHANNEL_PER_TOKEN", None),
    "fp4": ("NVFP4", None),
    "fp4_kv": ("NVFP4", "FP8"),
    "fp4_mlp_only": ("NVFP4", None),
    "weights_int8": ("W8A16", None),
    "smooth_quant": ("W8A8_SQ_PER_CHANNEL", None),
}


def parts_of(tensors: dict[str, Tensor], linear: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{linear}."): own for name, own in tensors.items() if name.startswith(f"{linear}.")}


@pytest.mark.parametrize("quantization", LAYOUTS)
def test_linears_have_the_layout_of_modelopt(
    decoder: Path, tmp_path: Path, calibration: Calibration, quantization: str
) -> None:
    tensors = quantize(decoder, tmp_path / "built", quantization, calibration)
    own = parts_of(tensors, f"{LAYER}.mlp.down_proj")
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in own.items()} == LAYOUTS[quantization]


@pytest.mark.parametrize("quantization", LAYOUTS)
def test_only_linears_change(decoder: Path, tmp_path: Path, calibration: Calibration, quantization: str) -> None:
    source = load_file(decoder / "model.safetensors")
    tensors = quantize(decoder, tmp_path / "built", quantization, calibration)
    others = {name for name in source if "_proj" not in name}
    assert others == {name for name in tensors if "_proj" not in name}
    assert all(torch.equal(source[name], tensors[name]) for name in others)
    assert all(tensors[name].dtype in (F8, U8, I8) for name in source.keys() - others)


@pytest.mark.parametrize("quantization", RECIPES)
def test_the_config_names_modelopts_algorithms(
    decoder: Path, tmp_path: Path, calibration: Calibration, quantization: str
) -> None:
    quantize(decoder, tmp_path / "built", quantization, calibration)
    config = json.loads((tmp_path / "built" / "hf_quant_config.json").read_text())
    assert config["producer"]["name"] == "heddle"
    stated = config["quantization"]
    assert (stated["quant_algo"], stated["kv_cache_quant_algo"]) == ALGORITHMS[quantization]
    assert stated.get("group_size") == (16 if "fp4" in quantization else None)
    assert "lm_head" in stated["exclude_modules"]
    assert ("*self_attn*" in stated["exclude_modules"]) == quantization.endswith("mlp_only")


def test_linears_on_the_same_inputs_share_scales(decoder: Path, tmp_path: Path, calibration: Calibration) -> None:
    """Compares the same pairs and scales as NVIDIA/Model-Optimizer does in
    tests/gpu/torch/export/test_unified_hf_export_and_check_safetensors.py."""
    pairs = [("mlp.gate_proj", "mlp.up_proj"), ("self_attn.q_proj", "self_attn.k_proj")]
    pairs.append(("self_attn.q_proj", "self_attn.v_proj"))
    for quantization, scales in (
        ("fp4", ("input_scale", "weight_scale_2")),
        ("smooth_quant", ("input_scale", "pre_quant_scale")),
    ):
        tensors = quantize(decoder, tmp_path / quantization, quantization, calibration)
        for one, other in pairs:
            for scale in scales:
                assert torch.equal(tensors[f"{LAYER}.{one}.{scale}"], tensors[f"{LAYER}.{other}.{scale}"])


def test_fp4_scales_follow_from_the_largest_magnitudes(decoder: Path, tmp_path: Path, calibration: Calibration) -> None:
    source = load_file(decoder / "model.safetensors")
    tensors = quantize(decoder, tmp_path / "built", "fp4", calibration)
    largest = max(float(source[f"{LAYER}.mlp.{part}_proj.weight"].abs().max()) for part in ("gate", "up"))
    scale = f"{LAYER}.mlp.up_proj.weight_scale_2"
    np.testing.assert_allclose(tensors[scale], largest / (6 * 256), rtol=1e-6)
    inputs = calibration.inputs[f"{LAYER}.mlp.gate_proj"].largest.max()
    np.testing.assert_allclose(tensors[f"{LAYER}.mlp.up_proj.input_scale"], inputs / (6 * 448), rtol=1e-6)


def test_cache_scales_are_stored_beside_key_and_value_weights(
    decoder: Path, tmp_path: Path, calibration: Calibration
) -> None:
    """Names follow `_KV_CACHE_REPLACEMENTS` of modelopt/torch/export/quant_utils.py."""
    tensors = quantize(decoder, tmp_path / "built", "fp8_kv", calibration)
    scales = {name: float(own) for name, own in tensors.items() if name.endswith((".k_scale", ".v_scale"))}
    layers = range(4)
    assert scales == {
        f"layers.{index}.self_attn.{part}_proj.{part}_scale": pytest.approx(
            largest[f"layers.{index}.self_attn.q_proj"] / 448
        )
        for index in layers
        for part, largest in (("k", calibration.keys), ("v", calibration.values))
    }


@pytest.mark.parametrize("quantization", ["fp8_mlp_only", "fp4_mlp_only"])
def test_mlp_only_does_not_change_attention(
    decoder: Path, tmp_path: Path, calibration: Calibration, quantization: str
) -> None:
    source = load_file(decoder / "model.safetensors")
    tensors = quantize(decoder, tmp_path / "built", quantization, calibration)
    attention = [name for name in tensors if ".self_attn." in name]
    assert attention == [name for name in source if ".self_attn." in name]
    assert all(torch.equal(source[name], tensors[name]) for name in attention)
    assert tensors[f"{LAYER}.mlp.down_proj.weight"].dtype in (F8, U8)


def test_builds_and_the_engine_support_the_same_quantizations() -> None:
    assert RECIPES.keys() == SCHEMES.keys()
    for name, recipe in RECIPES.items():
        assert recipe.algorithm in SCHEMES[name].algorithms
        assert recipe.mlp_only == SCHEMES[name].mlp_only
        assert (recipe.algorithm in FOR_ENCODERS) == SCHEMES[name].for_encoders
        assert needs_calibration(name) or not SCHEMES[name].needs_build


def test_quantizing_in_blocks_gives_the_same_result(
    decoder: Path, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{LAYER}.mlp.up_proj.weight"
    weight = load_file(decoder / "model.safetensors")[name]
    for quantization in LAYOUTS:
        quantizer = make_quantizer(quantization, Checkpoint.read(decoder), calibration)
        whole = quantizer.quantize(name, weight)
        monkeypatch.setattr("engine_svc.build.formats.ELEMENTS_AT_A_TIME", 5 * HIDDEN)
        parts = quantizer.quantize(name, weight)
        monkeypatch.undo()
        assert all(torch.equal(one.view(-1), other.view(-1)) for one, other in zip(whole, parts, strict=True))


def test_names_with_the_prefix_of_a_model_with_a_head_are_found(decoder: Path) -> None:
    quantizer = make_quantizer("fp8", Checkpoint.read(decoder))
    specs = quantizer.plan("model.layers.1.self_attn.k_proj.weight", (KV, HIDDEN))
    assert specs is not None
    assert [spec.name for spec in specs] == [
        f"model.layers.1.self_attn.k_proj.{part}" for part in ("weight", "weight_scale")
    ]
    for other in ("embed_tokens.weight", "norm.weight", "score.weight", "layers.1.self_attn.k_proj.bias"):
        assert quantizer.plan(other, (KV, HIDDEN)) is None


def test_rows_of_zeros_stay_zero(decoder: Path, tmp_path: Path, calibration: Calibration) -> None:
    name = f"{LAYER}.mlp.up_proj.weight"
    for quantization in LAYOUTS:
        quantizer = make_quantizer(quantization, Checkpoint.read(decoder), calibration)
        values, scales, *_ = quantizer.quantize(name, torch.zeros(INTERMEDIATE, HIDDEN))
        assert not values.float().any()
        assert scales.float().isfinite().all()


def test_linears_that_do_not_fit_blocks_of_16_stay_and_are_excluded(tmp_path: Path) -> None:
    write_decoder(tmp_path, DECODERS[0])
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", config | {"intermediate_size": 248})
    tensors = load_file(tmp_path / "model.safetensors")
    for name in list(tensors):
        if ".mlp." in name:
            tensors[name] = (tensors[name][:, :248] if "down" in name else tensors[name][:248]).contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    quantizer = make_quantizer("fp4", Checkpoint.read(tmp_path))
    assert quantizer.plan("layers.0.mlp.down_proj.weight", (HIDDEN, 248)) is None
    assert quantizer.plan("layers.0.mlp.up_proj.weight", (248, HIDDEN)) is not None
    assert "*layers.3.mlp.down_proj" in quantizer.config["quantization"]["exclude_modules"]


def test_formats_with_scales_of_inputs_or_of_a_cache_need_calibration(decoder: Path) -> None:
    needing = {name for name in RECIPES if needs_calibration(name)}
    assert needing == {"fp8_kv", "fp4", "fp4_kv", "fp4_mlp_only", "smooth_quant"}
    for quantization in ("fp8_kv", "fp4_kv", "smooth_quant"):
        with pytest.raises(ConfigurationError, match=f"^quantization {quantization} needs calibration$"):
            make_quantizer(quantization, Checkpoint.read(decoder))


def test_fp4_without_calibration_has_no_scales_of_inputs(decoder: Path) -> None:
    specs = make_quantizer("fp4", Checkpoint.read(decoder)).plan(f"{LAYER}.mlp.up_proj.weight", (INTERMEDIATE, HIDDEN))
    assert specs is not None
    assert [spec.name.rpartition(".")[2] for spec in specs] == ["weight", "weight_scale", "weight_scale_2"]


def test_unsupported_quantizations_and_models_are_refused(
    decoder: Path, tmp_path: Path, calibration: Calibration
) -> None:
    with pytest.raises(ConfigurationError, match=r"weights_int4 is not supported \(supported: fp8, fp8_kv, .*smooth"):
        make_quantizer("weights_int4", Checkpoint.read(decoder))
    encoder = Checkpoint.read(locate("all-MiniLM-L6-v2"))
    for quantization in RECIPES.keys() - {"weights_int8", "smooth_quant"}:
        with pytest.raises(ConfigurationError, match="is for decoders, not for bert"):
            make_quantizer(quantization, encoder, calibration)
    assert make_quantizer("weights_int8", encoder).plan("encoder.layer.0.output.dense.weight", (384, 1536)) is not None
    quantize(decoder, tmp_path / "built", "fp8", calibration)
    with pytest.raises(CheckpointError, match="the weights are already FP8_PER_CHANNEL_PER_TOKEN"):
        make_quantizer("fp8", Checkpoint.read(tmp_path / "built"))
