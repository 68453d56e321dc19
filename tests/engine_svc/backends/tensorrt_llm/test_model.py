"""What TensorRT-LLM loads: our config.json beside the checkpoint's weights, and a class that attends as the checkpoint
says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaModel, MistralModel, PreTrainedModel, Qwen2Model, Qwen3Model

from engine_svc.backends.tensorrt_llm.model import ARCHITECTURE, add_prefix, write_model_folder
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint
from tests.checkpoints import write_json
from tests.engine_svc.backends.tensorrt_llm import fake_llm
from tests.engine_svc.backends.tensorrt_llm.conftest import Install, Open, write_embedder
from tests.engine_svc.backends.tensorrt_llm.fake_llm import Llm
from tests.engine_svc.backends.tensorrt_llm.fake_models import (
    LlamaForCausalLM,
    PredefinedAttentionMask,
    Qwen3ForTextEmbedding,
)
from tests.engine_svc.models.cases_of.decoders import LLAMA3, nemotron
from tests.engine_svc.models.hub_layout import as_transformers_4, change_config
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each


def given(folder: Path, data_type: str = "bfloat16") -> tuple[dict[str, Any], Path]:
    engine = folder / "engine"
    engine.mkdir()
    write_model_folder(engine, Checkpoint.read(folder), data_type)
    return json.loads((engine / "config.json").read_text()), engine


@pytest.mark.parametrize("age", [lambda folder: None, as_transformers_4], ids=["transformers 5", "transformers 4"])
def test_positions_are_in_the_notation_that_all_versions_read(tmp_path: Path, age: Callable[[Path], None]) -> None:
    age(write_embedder(tmp_path, LlamaModel, rope_parameters=LLAMA3))
    config, _ = given(tmp_path)
    assert config["rope_theta"] == 500_000
    assert {name: config["rope_scaling"][name] for name in LLAMA3 if name != "rope_theta"} == {
        name: value for name, value in LLAMA3.items() if name != "rope_theta"
    }
    assert "rope_parameters" not in config


def test_unscaled_positions_have_no_scaling(tmp_path: Path) -> None:
    write_embedder(tmp_path, Qwen3Model)
    config, _ = given(tmp_path, "float16")
    assert config["rope_scaling"] is None
    assert (config["torch_dtype"], config["tie_word_embeddings"], config["architectures"]) == (
        "float16",
        True,
        ["LlamaForTextEmbedding"],
    )


def test_code_in_the_checkpoint_is_not_used(tmp_path: Path) -> None:
    nemotron(write_embedder(tmp_path, LlamaModel), auto_map={"AutoModel": "modeling.LlamaBidirectionalModel"})
    config, _ = given(tmp_path)
    assert config["model_type"] == "llama"
    assert "auto_map" not in config


def test_the_folder_links_only_to_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    write_embedder(tmp_path, LlamaModel)
    (tmp_path / "consolidated.safetensors").write_bytes(b"of another library")
    _, engine = given(tmp_path)
    assert {path.name for path in engine.iterdir()} == {"config.json", "model.safetensors"}
    assert (engine / "model.safetensors").resolve() == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("stated", "passed_on"), [("FP8", "FP8"), ("nvfp4", "NVFP4"), ("FP8_PB_WO", "FP8_BLOCK_SCALES")]
)
def test_quantization_is_passed_on_by_the_name_that_tensorrt_llm_knows(
    tmp_path: Path, stated: str, passed_on: str
) -> None:
    write_embedder(tmp_path, LlamaModel)
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


pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

FAMILIES = [LlamaModel, MistralModel, Qwen2Model, Qwen3Model]


def token_vectors(backend: Any, *ids: int) -> Any:
    sequence = TokenSequence(np.array(ids, "<u4").tobytes(), output=Output.TOKEN_VECTORS)
    return run_each(backend, packed([sequence]))[0]


@pytest.mark.usefixtures("llm")
@pytest.mark.parametrize("model_class", FAMILIES)
@pytest.mark.parametrize("is_causal", [True, False])
def test_tokens_attend_as_the_checkpoint_says(
    tmp_path: Path, open_backend: Open, model_class: type[PreTrainedModel], *, is_causal: bool
) -> None:
    """By default the real Llama would always be bidirectional here, and the others always causal."""
    write_embedder(tmp_path, model_class)
    change_config(tmp_path, is_causal=is_causal)
    backend = open_backend(tmp_path)
    first, other = token_vectors(backend, 5, 6, 7), token_vectors(backend, 5, 6, 8)
    assert np.allclose(first[:2], other[:2], atol=1e-6) is is_causal
    torch_backend = TorchBackend(Checkpoint.read(tmp_path), dtype="float32", device="cpu")
    np.testing.assert_allclose(first, token_vectors(torch_backend, 5, 6, 7), atol=1e-5)


def test_without_our_class_the_mask_is_the_wrong_one(
    tmp_path: Path, llm: type[Llm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the test above can fail: without our class the fake's Llama is bidirectional, as the real one."""
    write_embedder(tmp_path, LlamaModel)
    change_config(tmp_path, architectures=[ARCHITECTURE], tie_word_embeddings=True)
    passed: list[Any] = []

    class Plain(LlamaForCausalLM):
        def load_weights(self, weights: Any, weight_mapper: Any = None) -> None:
            passed.extend(layer._passed for layer in self.model.layers)

    monkeypatch.setitem(fake_llm.MODEL_CLASS_MAPPING, ARCHITECTURE, Plain)
    llm(model=str(tmp_path))
    assert passed == [{"attention_mask": PredefinedAttentionMask.FULL}] * 2


def test_qwen3_is_the_embedding_class_if_the_version_has_one(
    tmp_path: Path, open_backend: Open, install: Install
) -> None:
    write_embedder(tmp_path, Qwen3Model)
    bases = []
    for version in ("1.4.0rc1", "1.2.1"):
        install(version)
        open_backend(tmp_path)
        bases.append(issubclass(fake_llm.MODEL_CLASS_MAPPING[ARCHITECTURE], Qwen3ForTextEmbedding))  # type: ignore[arg-type]
    assert bases == [True, False]


def test_names_of_a_bare_model_get_the_prefix() -> None:
    weights = {"embed_tokens.weight": torch.ones(1), "layers.0.mlp.up_proj.weight": torch.zeros(1)}
    add_prefix(weights)
    assert weights == {"model.embed_tokens.weight": 1, "model.layers.0.mlp.up_proj.weight": 0}


def test_names_with_the_prefix_stay() -> None:
    weights = {"model.norm.weight": torch.ones(1), "score.weight": torch.zeros(1)}
    add_prefix(weights)
    assert weights.keys() == {"model.norm.weight", "score.weight"}
