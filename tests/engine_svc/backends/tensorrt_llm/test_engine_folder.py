"""The folder that TensorRT-LLM loads in place of the checkpoint's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaModel, Qwen3Model

from engine_svc.backends.tensorrt_llm.model import write_model_folder
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_json
from tests.engine_svc.backends.tensorrt_llm.served import written
from tests.engine_svc.models.cases_of.decoders import LLAMA3, nemotron
from tests.engine_svc.models.hub_layout import as_transformers_4, change_config


def given(folder: Path, data_type: str = "bfloat16") -> tuple[dict[str, Any], Path]:
    engine = folder / "engine"
    engine.mkdir()
    write_model_folder(engine, Checkpoint.read(folder), data_type)
    return json.loads((engine / "config.json").read_text()), engine


@pytest.mark.parametrize("age", [lambda folder: None, as_transformers_4], ids=["transformers 5", "transformers 4"])
def test_positions_are_in_the_notation_that_all_versions_read(tmp_path: Path, age: Callable[[Path], None]) -> None:
    age(written(tmp_path, LlamaModel, rope_parameters=LLAMA3))
    config, _ = given(tmp_path)
    assert config["rope_theta"] == 500_000
    assert {name: config["rope_scaling"][name] for name in LLAMA3 if name != "rope_theta"} == {
        name: value for name, value in LLAMA3.items() if name != "rope_theta"
    }
    assert "rope_parameters" not in config


def test_unscaled_positions_have_no_scaling(tmp_path: Path) -> None:
    written(tmp_path, Qwen3Model)
    config, _ = given(tmp_path, "float16")
    assert config["rope_scaling"] is None
    assert (config["torch_dtype"], config["tie_word_embeddings"], config["architectures"]) == (
        "float16",
        True,
        ["LlamaForTextEmbedding"],
    )


def test_code_of_the_checkpoint_is_not_asked_for(tmp_path: Path) -> None:
    nemotron(written(tmp_path, LlamaModel), auto_map={"AutoModel": "modeling.LlamaBidirectionalModel"})
    config, _ = given(tmp_path)
    assert config["model_type"] == "llama"
    assert "auto_map" not in config


def test_weights_are_those_of_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    written(tmp_path, LlamaModel)
    (tmp_path / "consolidated.safetensors").write_bytes(b"of another library")
    _, engine = given(tmp_path)
    assert {path.name for path in engine.iterdir()} == {"config.json", "model.safetensors"}
    assert (engine / "model.safetensors").resolve() == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("stated", "passed_on"), [("FP8", "FP8"), ("nvfp4", "NVFP4"), ("FP8_PB_WO", "FP8_BLOCK_SCALES")]
)
def test_quantization_is_passed_on_by_the_name_that_it_knows(tmp_path: Path, stated: str, passed_on: str) -> None:
    written(tmp_path, LlamaModel)
    change_config(tmp_path, quantization_config={"quant_method": "modelopt"})
    quantization = {
        "quant_algo": stated,
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head"],
        "group_size": 16,
    }
    write_json(tmp_path / "hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": quantization})
    config, engine = given(tmp_path)
    assert "quantization_config" not in config
    assert json.loads((engine / "hf_quant_config.json").read_text()) == {
        "producer": {"name": "modelopt"},
        "quantization": {**quantization, "quant_algo": passed_on, "kv_cache_quant_algo": None},
    }
