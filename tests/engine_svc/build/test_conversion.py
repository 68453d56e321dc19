"""Tensors of builds: which ones, their names, and that they do not depend on the file format of the source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from engine_svc.build.conversion import convert_model
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import SMALL_BERT, write_bert, write_json, write_tokenizer
from tests.engine_svc.build.building import build, read_tensors
from tests.engine_svc.models.cases_of.decoders import SMALL

MODERN = {**SMALL_BERT, "global_attn_every_n_layers": 2, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}


def write(folder: Path, model: PreTrainedModel) -> Path:
    write_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


def write_small_bert(folder: Path, model_class: type[PreTrainedModel] = BertModel) -> Path:
    write_tokenizer(folder)
    write_bert(folder, model_class)
    return folder


def load(model_class: type[PreTrainedModel], folder: Path) -> tuple[Any, Any]:
    """Returns the model and the loading report of transformers."""
    loaded: Any = model_class.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    return model, report


def rename(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def to_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def to_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file, {"format": "pt"})
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def to_legacy_names(folder: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        legacy = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {}
        for name, tensor in tensors.items():
            for modern, old in legacy.items():
                name = name.replace(modern, old)  # noqa: PLW2901
            renamed[name] = tensor
        return renamed

    rename(folder, change)


def to_masked_language_model(folder: Path) -> None:
    """Adds a prefix, and a head and buffers that nothing uses, as in many published embedders."""

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        more = {
            "cls.predictions.bias": torch.zeros(97),
            "cls.predictions.decoder.weight": tensors["embeddings.word_embeddings.weight"].clone(),
            "bert.embeddings.position_ids": torch.arange(64)[None],
        }
        return {**{f"bert.{name}": tensor for name, tensor in tensors.items()}, **more}

    rename(folder, change)


@pytest.mark.parametrize("reform", [to_pickle, to_shards, to_legacy_names, to_masked_language_model])
def test_equal_weights_in_other_file_formats_give_equal_builds(tmp_path: Path, reform: Callable[[Path], None]) -> None:
    plain, other = write_small_bert(tmp_path / "plain"), write_small_bert(tmp_path / "other")
    reform(other)
    ours, theirs = (
        (build(root, tmp_path / f"{root.name}-built") / "model.safetensors").read_bytes() for root in (plain, other)
    )
    assert ours == theirs


def test_tensors_are_in_loading_order_with_fused_ones_adjacent(tmp_path: Path) -> None:
    names = list(read_tensors(build(write_small_bert(tmp_path / "bert"), tmp_path / "built") / "model.safetensors"))
    weights = [name for name in names if name.endswith(".weight")]
    layer = "encoder.layer.0.attention.self"
    first = weights.index(f"{layer}.query.weight")
    assert weights[first : first + 3] == [f"{layer}.{part}.weight" for part in ("query", "key", "value")]
    assert weights.index("encoder.layer.1.output.dense.weight") > first + 3
    assert not [name for name in names if name.startswith("pooler.")]


def write_modernbert(folder: Path, model_class: type[PreTrainedModel]) -> Path:
    return write(folder, model_class(ModernBertConfig(**MODERN)))


def write_qwen3(folder: Path, model_class: type[PreTrainedModel]) -> Path:
    return write(folder, model_class(Qwen3Config(**SMALL)))


SOURCES: dict[str, tuple[type[PreTrainedModel], type[PreTrainedModel], Callable[..., Path]]] = {
    "bert": (BertModel, BertModel, write_small_bert),
    "bert with an unused head": (BertModel, BertForMaskedLM, write_small_bert),
    "bert classifier": (BertForSequenceClassification, BertForSequenceClassification, write_small_bert),
    "modernbert": (ModernBertModel, ModernBertModel, write_modernbert),
    "modernbert classifier": (
        ModernBertForSequenceClassification,
        ModernBertForSequenceClassification,
        write_modernbert,
    ),
    "qwen3": (Qwen3Model, Qwen3Model, write_qwen3),
}


@pytest.mark.parametrize("name", SOURCES)
def test_transformers_loads_a_build_without_missing_tensors(tmp_path: Path, name: str) -> None:
    model_class, saved_class, write_source = SOURCES[name]
    root = write_source(tmp_path / "source", saved_class)
    model, report = load(model_class, build(root, tmp_path / "built"))
    assert {name for name in report["missing_keys"] if not name.startswith("pooler.")} == set()
    assert set(report["unexpected_keys"]) == set()
    original = model_class.from_pretrained(root).state_dict()
    for tensor_name, tensor in model.state_dict().items():
        if not tensor_name.startswith("pooler."):
            assert torch.equal(tensor, original[tensor_name]), tensor_name


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_language_model_that_reranks_keeps_its_prefix_and_only_a_head_of_its_own(
    tmp_path: Path, is_tied: bool
) -> None:
    model = Qwen3ForCausalLM(Qwen3Config(**{**SMALL, "tie_word_embeddings": is_tied}))
    root = write(tmp_path / "source", model)
    if is_tied:  # some tools store the tied head too
        rename(root, lambda tensors: {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    artifact = build(root, tmp_path / "built", score_tokens="7,8")
    names = read_tensors(artifact / "model.safetensors").keys()
    assert ("lm_head.weight" in names) is not is_tied
    assert "model.embed_tokens.weight" in names
    loaded, report = load(Qwen3ForCausalLM, artifact)
    assert not report["missing_keys"]
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_embeddings_stored_under_the_name_of_the_tied_head_are_renamed(tmp_path: Path) -> None:
    root = write(tmp_path / "qwen3-embedding", Qwen3ForCausalLM(Qwen3Config(**{**SMALL, "tie_word_embeddings": True})))
    table = load_file(root / "model.safetensors")["model.embed_tokens.weight"]
    rename(root, lambda tensors: {name.replace("model.embed_tokens", "lm_head"): own for name, own in tensors.items()})
    read = read_tensors(build(root, tmp_path / "built") / "model.safetensors")
    assert torch.equal(read["embed_tokens.weight"], table)
    assert AutoModel.from_pretrained(tmp_path / "built").embed_tokens.weight.equal(table)


def test_tensors_computed_in_float32_are_not_converted(tmp_path: Path) -> None:
    root = write_small_bert(tmp_path / "source", BertForSequenceClassification)
    read = read_tensors(build(root, tmp_path / "built", data_type="bfloat16") / "model.safetensors")
    assert read["bert.encoder.layer.0.output.dense.weight"].dtype == torch.bfloat16
    assert read["classifier.weight"].dtype == read["bert.pooler.dense.weight"].dtype == torch.float32
    assert BertForSequenceClassification.from_pretrained(tmp_path / "built").config.dtype == torch.bfloat16


def test_a_checkpoint_that_does_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    root = write_small_bert(tmp_path / "source")
    rename(root, lambda tensors: {name: own for name, own in tensors.items() if ".0.output." not in name})
    with pytest.raises(CheckpointError, match=r"has no tensor encoder\.layer\.0\.output\.dense\.(weight|bias)"):
        convert_model(Checkpoint.read(root), None)


def test_prefixes_of_compiled_models_are_removed(tmp_path: Path) -> None:
    root = write_small_bert(tmp_path / "source", BertForSequenceClassification)
    rename(root, lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()})
    _, report = load(BertForSequenceClassification, build(root, tmp_path / "built"))
    assert not report["missing_keys"]
