"""The modules.json of sentence-transformers: which modules a checkpoint consists of, and in which order they run.

`sentence_modules` reads the settings of each. A module that is not known here is refused, since leaving it out
would give other vectors without a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from heddle.checkpoint.json_files import CheckpointError, parse_json, read_json_if_there

TRANSFORMERS = ("Transformer", "MLMTransformer")
# What follows the transformer without company.
ALONE = ("SpladePooling", "LogitScore")
# Modules that transform vectors, in any order: of tokens before Pooling, of texts after it.
VECTOR_KINDS = ("Dense", "LayerNorm", "Normalize")
# Dropout does nothing after training; the mask says which vectors scoring counts, and all are answered.
WITHOUT_EFFECT = ("Dropout", "MultiVectorMask")
KNOWN = frozenset({*TRANSFORMERS, "Pooling", *ALONE, *VECTOR_KINDS, *WITHOUT_EFFECT})
WITH_WEIGHTS = (*TRANSFORMERS, "Dense", "LayerNorm")
PACKAGES = ("sentence_transformers.", "pylate.")
# The code that comes with jina-embeddings-v3.
JINA_TRANSFORMER = "custom_st.Transformer"

# What a module may work on.
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


def modules_of(folder: Path, model: Mapping[str, Any]) -> list[Module]:
    """[] without modules.json; `model` is config_sentence_transformers.json. Raises CheckpointError."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return []
    modules = [module_of(entry, listing) for entry in module_entries(listing)]
    if model.get("model_type") == "ColBERT":  # PyLate's: its Dense is of tokens and does not say so
        modules = [as_of_tokens(module) for module in modules]
    check_order(modules, listing)
    for module in modules:
        check_subject(module)
    return modules


def module_of(entry: Mapping[str, str], listing: Path) -> Module:
    package, _, kind = entry["type"].rpartition(".")
    folder = listing.parent / inside(listing.parent, entry["path"])
    is_known = kind in KNOWN and package.startswith(PACKAGES)
    if not is_known and not (entry["type"] == JINA_TRANSFORMER and is_jina_v3(folder)):
        raise CheckpointError(f"{listing} has a module of type {entry['type']}, which is not supported")
    # The transformer's config.json is the model's own.
    return Module(kind, folder, {} if kind in TRANSFORMERS else read_json_if_there(folder / "config.json"))


def is_jina_v3(folder: Path) -> bool:
    """What its own module adds is the choice of an adapter, which is the engine's here."""
    return "lora_adaptations" in read_json_if_there(folder / "config.json")


def as_of_tokens(module: Module) -> Module:
    if module.kind not in ("Dense", "Normalize"):
        return module
    return Module(module.kind, module.folder, {**module.settings, "module_input_name": TOKENS})


def folders_with_weights(folder: Path) -> list[Path]:
    """The folders of the transformer, Dense and LayerNorm; without modules.json the checkpoint's folder alone."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return [folder]
    entries = [entry for entry in module_entries(listing) if entry["type"].rpartition(".")[2] in WITH_WEIGHTS]
    return [folder / inside(folder, entry["path"]) for entry in entries]


def check_order(modules: Sequence[Module], listing: Path) -> None:
    """Raises CheckpointError unless the order is: a transformer, modules of tokens, Pooling, modules of pooled vectors;
    or a transformer and one of ALONE."""
    active = [module for module in modules if module.kind not in WITHOUT_EFFECT]
    kinds = [module.kind for module in active]
    for kind in sorted(set(kinds) - set(VECTOR_KINDS)):
        if kinds.count(kind) > 1:
            raise CheckpointError(f"{listing} has more than one module of type {kind}")
    if not kinds or kinds[0] not in TRANSFORMERS:
        raise CheckpointError(f"{listing} has no Transformer module, or not in front")
    for kind in ALONE:
        if kind in kinds and len(kinds) > 2:
            raise CheckpointError(f"{listing} has {kind} beside Pooling or Normalize, which is not supported")
    if "Pooling" in kinds:
        check_sides(
            active[: kinds.index("Pooling")], TOKENS, f"{listing} has a module of pooled vectors before Pooling"
        )
        check_sides(active[kinds.index("Pooling") :], SENTENCE, f"{listing} has a module of tokens after Pooling")
    elif any(module.kind in ("Dense", "LayerNorm") and module.subject == SENTENCE for module in modules):
        raise CheckpointError(f"{listing} has a module of pooled vectors, but no Pooling")


def check_sides(modules: Sequence[Module], subject: str, complaint: str) -> None:
    for module in modules:
        if module.kind in VECTOR_KINDS and module.subject != subject:
            raise CheckpointError(f"{complaint} ({module.kind}), which is not supported")


def module_entries(listing: Path) -> Sequence[Mapping[str, str]]:
    entries = parse_json(listing)
    if not isinstance(entries, list) or not all(is_entry(entry) for entry in entries):
        raise CheckpointError(f"{listing} is not a list of modules, each with a type and a path")
    return entries


def is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)


def inside(folder: Path, path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise CheckpointError(f"{folder / 'modules.json'} has the path {path!r}, which leads out of the folder")
    return path


def check_subject(module: Module) -> None:
    if module.kind == "LogitScore":  # of the language model's logits
        return
    output = module.settings.get("module_output_name") or module.subject
    if module.subject not in (SENTENCE, TOKENS) or output != module.subject:
        place = module.folder / "config.json"
        raise CheckpointError(f"{place} makes {output!r} of {module.subject!r}, which is not supported")
