"""Lists the files of an artifact other than its weights: configuration, tokenizer and modules.

`heddle build` calls this, without torch, to look up an equal build; `artifact` writes the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from engine_svc.build.modules_json import LISTING, Listing, add_missing_modules, encode, get_kind, join, read_listing
from heddle.artifacts.manifest import NAME as MANIFEST
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.language_models import find_known_reranker, join_names
from heddle.checkpoint.model_source import CONFIGURATION_PATTERNS
from heddle.checkpoint.module_listing import WITH_WEIGHTS, check_path
from heddle.checkpoint.weight_files import find_weight_files, has_weights

PATTERNS = (*CONFIGURATION_PATTERNS, "artifact.metadata")

# Weight indexes, and leftovers of training.
LEFT_OUT = (
    *("*.index.json", MANIFEST, "README*", "data_config.json", "requirements*.txt", "trainer_state.json"),
    *("training_args.json", "*_results.json", "*_results.txt", "eval_*", "train_*"),
)

# Further folders that the tokenizer reads.
MORE_FOLDERS = ("additional_chat_templates",)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Paths are relative to the artifact, with `/` between names."""

    copied: Sequence[str]  # from the same path of the checkpoint
    written: Mapping[str, bytes]  # contents of the other files
    weights: Sequence[str]  # folders with weights, the transformer's first; "." is the artifact's root
    sources: Sequence[str]  # all files of the checkpoint that the build reads

    @classmethod
    def of(cls, root: Path, checkpoint: Checkpoint, *, data_type: str = "") -> "Configuration":
        """`checkpoint` was read from `root`. `data_type` is that of the new weights if it differs from the
        checkpoint's. Raises CheckpointError."""
        home = checkpoint.folder.relative_to(root).as_posix()
        written = {}
        config = change_config(root, checkpoint, data_type)
        if config != checkpoint.config:
            written[join(home, "config.json")] = encode(config)
        stated = read_listing(root)
        listing, added = add_missing_modules(root, checkpoint, stated)
        written |= added
        if listing != stated:
            written[LISTING] = encode(listing)
        folders = ["", *(check_path(root, entry["path"]) for entry in listing), *MORE_FOLDERS]
        found = {path for folder in folders for path in list_configuration(root, folder)}
        weights = list_weights(root, listing, home)
        files = {path for folder in weights for path in list_weight_files(root, folder)}
        return cls(sorted(found - written.keys()), written, weights, sorted(found | files))


def list_configuration(root: Path, folder: str) -> list[str]:
    """Returns files directly in `folder`, or none if it does not exist."""
    place = root / folder
    if not place.is_dir():
        return []
    names = [path.name for path in place.iterdir() if path.is_file()]
    return [join(folder, name) for name in names if is_configuration(name)]


def is_configuration(name: str) -> bool:
    is_left_out = name.startswith(".") or any(fnmatchcase(name, pattern) for pattern in LEFT_OUT)
    return not is_left_out and any(fnmatchcase(name, pattern) for pattern in PATTERNS)


def list_weights(root: Path, listing: Listing, home: str) -> list[str]:
    paths = [join(check_path(root, entry["path"]), ".") for entry in listing if get_kind(entry) in WITH_WEIGHTS]
    return [home, *(path for path in paths if path != home and has_weights(root / path))]


def list_weight_files(root: Path, folder: str) -> list[str]:
    """Leaves out the index of shards: each shard names its own tensors."""
    return [join(folder, path.name) for path in find_weight_files(root / folder)]


def change_config(root: Path, checkpoint: Checkpoint, data_type: str) -> Mapping[str, Any]:
    """Returns the artifact's config.json: without names of other weight files, with the data type, and with the family
    of a reranker that would otherwise be recognised by its name only. The family decides the prompt."""
    config = {name: value for name, value in checkpoint.config.items() if name != "transformers_weights"}
    if data_type:
        name = "dtype" if "dtype" in config else "torch_dtype"
        config[name] = data_type
    family = find_family(root, checkpoint)
    if family and find_known_reranker(checkpoint.config, str(config.get("_name_or_path") or "")) is None:
        config["_name_or_path"] = family
    return config


def find_family(root: Path, checkpoint: Checkpoint) -> str:
    """Returns the reranker family that the name implies, which decides the prompt, or "" for none."""
    if checkpoint.kind is not ModelKind.RERANKER:
        return ""
    names = f"{join_names(checkpoint.config, checkpoint.name, checkpoint.folder)} {root}"
    known = find_known_reranker(checkpoint.config, names)
    return known.name if known else ""
