"""Finds the weight files of a folder, in the order in which transformers and sentence-transformers look for them.

Called by the engine, which loads the weights, and by `heads`, which reads their shapes without torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from heddle.checkpoint.damaged_files import explain_safetensors, read_header
from heddle.checkpoint.json_files import CheckpointError, get_field, read_json, read_json_if_exists

# The first file that exists is used. An index beside a single file is a leftover of an older save.
FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

STATED_ENDINGS = (".safetensors", ".safetensors.index.json")

# Endings of files that may hold weights, for the message about a folder that has none of FILES.
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
OTHERS_MAX = 3  # names in that message

# torch.compile adds this to the names of what it compiles: the model or parts of it.
COMPILED = "_orig_mod."
# DataParallel adds this to the beginning of all names.
PARALLEL = "module."

Value = TypeVar("Value")


def find_weight_files(folder: Path) -> list[Path]:
    """Returns one file or all shards. Raises CheckpointError if there are no weights or a shard is missing."""
    stated = read_stated_file(folder)
    for name in FILES if stated is None else (stated,):
        path = folder / name
        if path.is_file():
            return find_shards(path) if path.suffix == ".json" else [path]
    missing = f"no {stated}" if stated else "neither model.safetensors nor pytorch_model.bin"
    raise CheckpointError(f"{folder} has no weights: {missing}{describe_others(folder)}")


def describe_others(folder: Path) -> str:
    """Returns the end of a sentence about a folder without weights: the files that hold weights in another form."""
    names = sorted(path.name for path in folder.glob("*") if path.suffix in WEIGHT_ENDINGS)
    if not names:
        return ""
    shards = " without their index" if any("-of-" in name for name in names) else ""
    more = f" and {len(names) - OTHERS_MAX} more" if len(names) > OTHERS_MAX else ""
    return f" (only {', '.join(names[:OTHERS_MAX])}{more}{shards})"


def has_weights(folder: Path) -> bool:
    """Files with other names, such as those of an adapter, are not the weights of the model."""
    try:
        return bool(find_weight_files(folder))
    except CheckpointError:
        return False


def read_stated_file(folder: Path) -> str | None:
    """Returns the file or index that config.json names. As in transformers, it must be a safetensors file. Raises
    CheckpointError."""
    path = folder / "config.json"
    name = get_field(read_json_if_exists(path), "transformers_weights", str, path)
    if name is not None and (Path(name).name != name or not name.endswith(STATED_ENDINGS)):
        raise CheckpointError(f"{path}: transformers_weights {name!r} is not a safetensors file of the folder")
    return name


def find_shards(index: Path) -> list[Path]:
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files")
    for shard in set(shard_of.values()):
        if Path(shard).name != shard or not (index.parent / shard).is_file():
            raise CheckpointError(f"{index} names {shard}, which is not a file of the folder")
    return [index.parent / shard for shard in sorted(set(shard_of.values()))]


def read_shapes(path: Path) -> dict[str, Sequence[int]]:
    """Returns the shapes of the tensors in a safetensors file by name. Raises CheckpointError."""
    try:
        return {name: entry["shape"] for name, entry in read_header(path).items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = explain_safetensors(path) or f"is not a safetensors file: {error}"
        raise CheckpointError(f"{path} {reason}") from None


def unwrap_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Removes what torch.compile and DataParallel add to the names of a model's tensors."""
    bare = {name.replace(COMPILED, ""): value for name, value in tensors.items()}
    if all(name.startswith(PARALLEL) for name in bare):
        return {name.removeprefix(PARALLEL): value for name, value in bare.items()}
    return bare
