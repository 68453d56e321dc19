"""A model that does not fit into the memory of the GPU is refused before its weights are loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, Qwen3Config, Qwen3ForCausalLM

from engine_svc.backends.loading import WORKING_BYTES, check_memory, count_weight_bytes
from engine_svc.device import CPU
from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError
from tests.checkpoints import write_bert, write_json, write_old_modules
from tests.engine_svc.gpus import L4, install_gpus
from tests.engine_svc.models.cases_of.decoders import SMALL
from tests.engine_svc.models.hub_layout import change_config

MIB = 1 << 20


@pytest.fixture
def bert(tmp_path: Path) -> Checkpoint:
    write_bert(tmp_path, BertModel, hidden_size=128, vocab_size=4096)
    return Checkpoint.read(tmp_path, "some-bert")


def parameters(checkpoint: Checkpoint) -> int:
    return sum(parameter.numel() for parameter in BertModel.from_pretrained(checkpoint.folder).parameters())


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_the_size_of_weights_depends_on_the_data_type(bert: Checkpoint, dtype: str, size: int) -> None:
    pooler = 128 * 128 + 128  # is not loaded
    assert abs(count_weight_bytes(bert, dtype) - (parameters(bert) - pooler) * size) <= pooler * size


def test_quantized_weights_take_less_and_embeddings_stay(bert: Checkpoint) -> None:
    embeddings = 2 * 4096 * 128
    full, fp8, fp4 = (count_weight_bytes(bert, "bfloat16", quantization) for quantization in ("no_quant", "fp8", "fp4"))
    assert embeddings < fp4 < fp8 < full
    assert fp8 - embeddings > (full - embeddings) / 2


def test_mlp_only_counts_attention_weights_in_16_bit(bert: Checkpoint) -> None:
    full, all_linears, mlp, int8 = (
        count_weight_bytes(bert, "bfloat16", quantization)
        for quantization in ("no_quant", "fp8", "fp8_mlp_only", "weights_int8")
    )
    assert all_linears == int8
    layers = len([name for name in load_file(bert.folder / "model.safetensors") if name.endswith("query.weight")])
    assert mlp == all_linears + layers * 4 * 128 * 128
    assert mlp < full


def test_quantized_weights_of_a_checkpoint_are_loaded_as_they_are(bert: Checkpoint) -> None:
    before = count_weight_bytes(bert, "float16")
    save_file({"more.weight": torch.zeros(1000, dtype=torch.uint8)}, bert.folder / "model.safetensors")
    assert count_weight_bytes(bert, "float16") == 1000 < before
    change_config(bert.folder, quantization_config={"quant_method": "modelopt"})
    assert count_weight_bytes(Checkpoint.read(bert.folder), "float16") == 1000


def test_16_bit_weights_of_a_quantized_checkpoint_are_counted_in_16_bit(bert: Checkpoint) -> None:
    full = count_weight_bytes(bert, "bfloat16")
    write_json(bert.folder / "hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}})
    assert count_weight_bytes(bert, "bfloat16", "fp8") == full


def test_a_head_that_is_not_loaded_takes_nothing(tmp_path: Path) -> None:
    model = Qwen3ForCausalLM(Qwen3Config(**SMALL, tie_word_embeddings=False))
    model.save_pretrained(tmp_path)
    write_old_modules(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})
    checkpoint = Checkpoint.read(tmp_path)
    Model.load(checkpoint, dtype=torch.float32, device=torch.device("meta"))
    loaded = sum(parameter.numel() for parameter in model.model.parameters())
    assert count_weight_bytes(checkpoint, "float32") == 4 * loaded


def test_a_model_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, bert: Checkpoint) -> None:
    needed = count_weight_bytes(bert, "float16") + WORKING_BYTES
    install_gpus(monkeypatch, L4, free_bytes=needed)
    check_memory(L4, bert, "float16")
    install_gpus(monkeypatch, L4, free_bytes=needed - 1)
    with pytest.raises(ConfigurationError) as caught:
        check_memory(L4, bert, "float16")
    assert str(caught.value) == (
        "some-bert does not fit into the memory of NVIDIA L4 (compute capability 8.9): its weights take 0.0 GiB in "
        "float16, and 0.5 GiB of 22.0 GiB are free"
    )
    check_memory(CPU, bert, "float16")


def test_quantization_makes_a_model_fit(monkeypatch: pytest.MonkeyPatch, bert: Checkpoint) -> None:
    install_gpus(monkeypatch, L4, free_bytes=count_weight_bytes(bert, "float16", "fp8") + WORKING_BYTES)
    check_memory(L4, bert, "float16", "fp8")
    with pytest.raises(ConfigurationError, match="does not fit"):
        check_memory(L4, bert, "float16", "no_quant")
