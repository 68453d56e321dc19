"""Rewrites the weights of a folder in the file formats found on the hub, without changing their values.

`test_file_forms.py` loads a BERT in each format, and a checkpoint of every architecture in several at once.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine_svc.models.architectures.registry import find_architecture
from engine_svc.models.model_config import ModelConfig
from heddle.checkpoint.json_files import read_json
from tests.checkpoints import write_json
from tests.engine_svc.models.cases import rename_tensor

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
OLD_NORMS = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
SHARDS = 3
METADATA = {"format": "pt"}

Tensors = Mapping[str, Tensor]


def pickle_weights(folder: Path, *, is_zip: bool = True) -> None:
    """Replaces the weights of the folder with a pickled file."""
    torch.save(take_tensors(folder), folder / PICKLED, _use_new_zipfile_serialization=is_zip)


def pickle_before_torch_1_6(folder: Path) -> None:
    pickle_weights(folder, is_zip=False)


def pickle_state_dict(folder: Path) -> None:
    """Saves as training scripts do: with module versions, and parameters instead of tensors."""
    state = torch.nn.Module().state_dict()
    for name, tensor in take_tensors(folder).items():
        state[name] = torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor
    torch.save(state, folder / PICKLED)


def write_pickled_shards(folder: Path) -> None:
    write_shards(folder, PICKLED, torch.save)


def write_safetensors_shards(folder: Path) -> None:
    write_shards(folder, SAFETENSORS, save_file)


def write_shards(folder: Path, name: str, write: Callable[[dict[str, Tensor], Path], Any]) -> None:
    tensors = sorted(take_tensors(folder).items())
    stem, _, ending = name.rpartition(".")
    shard_of: dict[str, str] = {}
    for index in range(SHARDS):
        shard, part = f"{stem}-{index + 1:05}-of-{SHARDS:05}.{ending}", dict(tensors[index::SHARDS])
        write(part, folder / shard)
        shard_of |= dict.fromkeys(part, shard)
    write_json(folder / f"{name}.index.json", {"metadata": {"total_size": 0}, "weight_map": shard_of})


def leave_out_metadata(folder: Path) -> None:
    save_file(take_tensors(folder), folder / SAFETENSORS)


def mix_types(folder: Path) -> None:
    """Stores the tensors in four data types. All can represent the values of `round_numbers`."""
    types = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    tensors = {
        name: tensor.to(types[index % len(types)]) if tensor.is_floating_point() else tensor
        for index, (name, tensor) in enumerate(sorted(take_tensors(folder).items()))
    }
    save_file(tensors, folder / SAFETENSORS, METADATA)


def use_names_of_data_parallel(folder: Path) -> None:
    rename(folder, lambda name: f"module.{name}")


def use_names_of_compile(folder: Path) -> None:
    rename(folder, lambda name: f"_orig_mod.{name}")


def compile_layers(folder: Path) -> None:
    """Uses the names of a model whose layers were compiled one by one before DataParallel."""
    rename(folder, lambda name: "module." + re.sub(r"(layers?|layer_groups)\.0\.", r"\1.0._orig_mod.", name))


def add_prefix(folder: Path) -> None:
    """Uses the names of the same model saved with a head."""
    prefix = find_prefix(folder)
    rename(folder, lambda name: name if name.startswith(prefix) or is_of_head(name) else prefix + name)


def remove_prefix(folder: Path) -> None:
    prefix = find_prefix(folder)
    rename(folder, lambda name: name.removeprefix(prefix))


def use_tensorflow_names(folder: Path) -> None:
    rename(folder, lambda name: rename_tensor(name, OLD_NORMS))


def add_foreign_tensors(folder: Path) -> None:
    """Adds tensors left over from training, and those that old versions of transformers saved."""
    prefix = find_prefix(folder)
    more = {
        f"{prefix}embeddings.position_ids": torch.arange(8)[None],
        f"{prefix}layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "lm_loss.weight": torch.ones(3, 2),
        "loss.counts": torch.ones(2, dtype=torch.int8),
    }
    save_file({**take_tensors(folder), **more}, folder / SAFETENSORS, METADATA)


FORMS: Mapping[str, Callable[[Path], None]] = {
    "no metadata": leave_out_metadata,
    "shards": write_safetensors_shards,
    "pickled": pickle_weights,
    "pickled before torch 1.6": pickle_before_torch_1_6,
    "pickled state_dict": pickle_state_dict,
    "pickled shards": write_pickled_shards,
    "four types": mix_types,
    "DataParallel": use_names_of_data_parallel,
    "torch.compile": use_names_of_compile,
    "compiled layers in DataParallel": compile_layers,
    "with prefix": add_prefix,
    "without prefix": remove_prefix,
    "norms of TensorFlow": use_tensorflow_names,
    "foreign tensors": add_foreign_tensors,
}

# Combinations found in real checkpoints. The files are written last.
OLDEST = (add_foreign_tensors, use_tensorflow_names, add_prefix, use_names_of_data_parallel, pickle_before_torch_1_6)
NEWEST = (remove_prefix, compile_layers, mix_types, write_safetensors_shards)


def change_to_oldest(folder: Path) -> None:
    for change in OLDEST:
        change(folder)


def change_to_newest(folder: Path) -> None:
    for change in NEWEST:
        change(folder)


COMBINED: Mapping[str, Callable[[Path], None]] = {"oldest": change_to_oldest, "newest": change_to_newest}


def round_numbers(folder: Path) -> None:
    """Rounds the weights to values that both 16-bit types can represent."""
    tensors = {
        name: tensor.bfloat16().half().float() if tensor.is_floating_point() else tensor
        for name, tensor in take_tensors(folder).items()
    }
    save_file(tensors, folder / SAFETENSORS, METADATA)


def take_tensors(folder: Path) -> dict[str, Tensor]:
    """Removes the weights from the folder and returns them."""
    path = folder / SAFETENSORS
    tensors = load_file(path)
    path.unlink()
    return tensors


def rename(folder: Path, name_of: Callable[[str], str]) -> None:
    tensors = take_tensors(folder)
    save_file({name_of(name): tensor for name, tensor in tensors.items()}, folder / SAFETENSORS, METADATA)


def find_prefix(folder: Path) -> str:
    return find_architecture(ModelConfig(read_json(folder / "config.json"), folder / "config.json")).prefix


HEADS = (
    *("classifier", "score", "pre_classifier", "vocab_", "cls.", "lm_head.", "head.", "decoder.", "predictions."),
    *("generator_predictions.", "generator_lm_head.", "linear.", "pooler."),
)


def is_of_head(name: str, heads: Iterable[str] = HEADS) -> bool:
    return name.startswith(tuple(heads))
