"""Reads the modules.json of sentence-transformers: which modules a checkpoint has, and in which order they run.

`sentence_modules` reads the settings of each module. An unknown module is rejected, because the vectors would be wrong
without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from heddle.checkpoint.json_files import CheckpointError, parse_json, read_json_if_exists

TRANSFORMERS = ("Transformer", "MLMTransformer")
# These follow the transformer and exclude any other module.
EXCLUSIVE = ("SpladePooling", "LogitScore")
# Modules that transform vectors: those of tokens before Pooling, those of texts after it.
VECTOR_KINDS = ("Dense", "LayerNorm", "Normalize")
# Dropout does nothing after training. The mask selects vectors for scoring, but all vectors are returned.
WITHOUT_EFFECT = ("Dropout", "MultiVectorMask")
KNOWN = frozenset({*TRANSFORMERS, "Pooling", *EXCLUSIVE, *VECTOR_KINDS, *WITHOUT_EFFECT})
WITH_WEIGHTS = (*TRANSFORMERS, "Dense", "LayerNorm")
PACKAGES = ("sentence_transformers.", "pylate.")
# The custom code of jina-embeddings-v3.
JINA_TRANSFORMER = "custom_st.Transformer"

# The possible inputs of a module.
SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"


@dataclass(frozen=True, slots=True)
class Module:
    """An entry of modules.json."""

    kind: str  # class name
    folder: Path
    settings: Mapping[str, Any]  # its config.json

    @property
    def subject(self) -> str:
        return str(self.settings.get("module_input_name", SENTENCE))


def read_modules(folder: Path, model: Mapping[str, Any]) -> list[Module]:
    """Returns [] without modules.json. `model` is config_sentence_transformers.json. Raises CheckpointError."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return []
    modules = [read_module(entry, listing) for entry in read_entries(listing)]
    if model.get("model_type") == "ColBERT":  # PyLate's Dense transforms tokens but does not say so
        modules = [mark_as_token_module(module) for module in modules]
    check_order(modules, listing)
    for module in modules:
        check_subject(module)
    return modules


def read_module(entry: Mapping[str, str], listing: Path) -> Module:
    package, _, kind = entry["type"].rpartition(".")
    folder = listing.parent / check_path(listing.parent, entry["path"])
    is_known = kind in KNOWN and package.startswith(PACKAGES)
    if not is_known and not (entry["type"] == JINA_TRANSFORMER and is_jina_v3(folder)):
        raise CheckpointError(f"{listing} has a module of type {entry['type']}, which is not supported")
    # The config.json of the transformer is that of the model.
    return Module(kind, folder, {} if kind in TRANSFORMERS else read_json_if_exists(folder / "config.json"))


def is_jina_v3(folder: Path) -> bool:
    """Jina's module only adds the choice of an adapter, which the engine makes here."""
    return "lora_adaptations" in read_json_if_exists(folder / "config.json")


def mark_as_token_module(module: Module) -> Module:
    if module.kind not in ("Dense", "Normalize"):
        return module
    return Module(module.kind, module.folder, {**module.settings, "module_input_name": TOKENS})


def folders_with_weights(folder: Path) -> list[Path]:
    """Returns the folders of transformer, Dense and LayerNorm; without modules.json, the checkpoint's folder alone."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return [folder]
    entries = [entry for entry in read_entries(listing) if entry["type"].rpartition(".")[2] in WITH_WEIGHTS]
    return [folder / check_path(folder, entry["path"]) for entry in entries]


def check_order(modules: Sequence[Module], listing: Path) -> None:
    """Raises CheckpointError unless the order is transformer, modules of tokens, Pooling, modules of pooled vectors, or
    transformer and one of EXCLUSIVE."""
    active = [module for module in modules if module.kind not in WITHOUT_EFFECT]
    kinds = [module.kind for module in active]
    for kind in sorted(set(kinds) - set(VECTOR_KINDS)):
        if kinds.count(kind) > 1:
            raise CheckpointError(f"{listing} has more than one module of type {kind}")
    if not kinds or kinds[0] not in TRANSFORMERS:
        raise CheckpointError(f"{listing} does not begin with a Transformer module")
    for kind in EXCLUSIVE:
        if kind in kinds and len(kinds) > 2:
            raise CheckpointError(f"{listing} has {kind} beside Pooling or Normalize, which is not supported")
    if "Pooling" in kinds:
        index = kinds.index("Pooling")
        check_subjects(active[:index], TOKENS, f"{listing} has a module of pooled vectors before Pooling")
        check_subjects(active[index:], SENTENCE, f"{listing} has a module of tokens after Pooling")
    elif any(module.kind in ("Dense", "LayerNorm") and module.subject == SENTENCE for module in modules):
        raise CheckpointError(f"{listing} has a module of pooled vectors, but no Pooling")


def check_subjects(modules: Sequence[Module], subject: str, complaint: str) -> None:
    for module in modules:
        if module.kind in VECTOR_KINDS and module.subject != subject:
            raise CheckpointError(f"{complaint} ({module.kind}), which is not supported")


def read_entries(listing: Path) -> Sequence[Mapping[str, str]]:
    entries = parse_json(listing)
    if not isinstance(entries, list) or not all(is_entry(entry) for entry in entries):
        raise CheckpointError(f"{listing} is not a list of modules, each with a type and a path")
    return entries


def is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)


def check_path(folder: Path, path: str) -> str:
    """Raises CheckpointError for a path that leads out of the folder."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise CheckpointError(f"{folder / 'modules.json'} has the path {path!r}, which leads out of the folder")
    return path


def check_subject(module: Module) -> None:
    if module.kind == "LogitScore":  # its input is the logits of the language model
        return
    output = module.settings.get("module_output_name") or module.subject
    if module.subject not in (SENTENCE, TOKENS) or output != module.subject:
        place = module.folder / "config.json"
        raise CheckpointError(f"{place} turns {module.subject!r} into {output!r}, which is not supported")
