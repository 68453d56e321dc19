"""What sentence-transformers' own files say of a checkpoint: its modules, their settings, and the prompts.

Both forms are read: that of versions before 5.4 (`sentence_transformers.models.Pooling`, one boolean per pooling mode)
and the newer one (`pooling_mode`). `heddle.checkpoint` puts this together with config.json.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from heddle.checkpoint_files import CheckpointError, parse_json, read_json_if_there

# The first that is there counts, in this order.
TRANSFORMER_SETTINGS_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

TRANSFORMER_TASKS = frozenset({"feature-extraction", "sequence-classification", "fill-mask"})


class Pooling(enum.StrEnum):
    """How the hidden states of a sequence's tokens become one vector."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    WEIGHTED_MEAN = "weighted_mean"
    LAST_TOKEN = "last_token"


POOLING_OF_MODE = {
    "cls": Pooling.CLS,
    "max": Pooling.MAX,
    "mean": Pooling.MEAN,
    "mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "weightedmean": Pooling.WEIGHTED_MEAN,
    "lasttoken": Pooling.LAST_TOKEN,
}

# In the order in which sentence-transformers concatenates them.
MODE_OF_BOOLEAN = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

SPLADE_STRATEGIES = ("max", "sum")
SPLADE_ACTIVATIONS = ("relu", "log1p_relu")


@dataclass(frozen=True, slots=True)
class Splade:
    """How the logits of a sequence's tokens become one sparse vector, as SpladePooling has it."""

    sums: bool = False  # over the tokens; else their maximum
    logs_twice: bool = False  # log(1 + log(1 + relu(logit))), else log(1 + relu(logit))
    active_max: int | None = None  # so many components stay, the largest; None = all


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """The modules of a checkpoint folder; all defaults where it has none of sentence-transformers' files."""

    transformer_path: str = ""  # folder of config.json, inside the checkpoint's
    pooling: tuple[Pooling, ...] = ()  # () = no Pooling module
    include_prompt: bool = True
    normalizes: bool = False
    splade: Splade | None = None  # None = no SpladePooling module
    sequence_tokens_max: int | None = None
    do_lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str = ""
    truncate_dim: int | None = None  # vectors are cut to so many components

    @classmethod
    def read(cls, folder: Path) -> "SentenceModules":
        paths = module_paths(folder)
        transformer_path = paths.get("MLMTransformer", paths.get("Transformer", ""))
        settings = transformer_settings(folder / transformer_path)
        model = read_json_if_there(folder / "config_sentence_transformers.json")
        pooling = read_json_if_there(folder / paths["Pooling"] / "config.json") if "Pooling" in paths else {}
        prompts = {str(name): text or "" for name, text in (model.get("prompts") or {}).items()}
        default_prompt_name = model.get("default_prompt_name") or ""
        if default_prompt_name and default_prompt_name not in prompts:
            raise CheckpointError(f"{folder}: the default prompt {default_prompt_name!r} is not among the prompts")
        return cls(
            transformer_path=transformer_path,
            pooling=pooling_of(pooling, folder / paths["Pooling"]) if "Pooling" in paths else (),
            include_prompt=pooling.get("include_prompt", True),
            normalizes="Normalize" in paths,
            splade=splade_of(folder / paths["SpladePooling"], model) if "SpladePooling" in paths else None,
            sequence_tokens_max=settings.get("max_seq_length"),
            do_lower_case=bool(settings.get("do_lower_case")),
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            truncate_dim=model.get("truncate_dim"),
        )


def module_paths(folder: Path) -> dict[str, str]:
    """Folder of each module by its class name; {} without modules.json. One that we do not know is refused, since
    leaving it out would give other vectors without a word."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return {}
    paths: dict[str, str] = {}
    for module in module_entries(listing):
        package, _, class_name = module["type"].rpartition(".")
        if class_name not in KNOWN_MODULES or not package.startswith("sentence_transformers."):
            raise CheckpointError(f"{listing} has a module of type {module['type']}, which is not supported")
        if class_name in paths:
            raise CheckpointError(f"{listing} has more than one module of type {module['type']}")
        paths[class_name] = inside(folder, module["path"])
        KNOWN_MODULES[class_name](folder / paths[class_name])
    if not paths.keys() & {"Transformer", "MLMTransformer"}:
        raise CheckpointError(f"{listing} has no Transformer module")
    if "SpladePooling" in paths and paths.keys() & {"Pooling", "Normalize"}:
        raise CheckpointError(f"{listing} has SpladePooling beside Pooling or Normalize, which is not supported")
    return paths


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


def transformer_settings(folder: Path) -> Mapping[str, Any]:
    for name in TRANSFORMER_SETTINGS_FILES:
        settings = read_json_if_there(folder / name)
        if settings:
            return settings
    return {}


def pooling_of(settings: Mapping[str, Any], folder: Path) -> tuple[Pooling, ...]:
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in MODE_OF_BOOLEAN.items() if settings.get(name)] or ["mean"]
    if isinstance(modes, str):
        modes = [modes]
    for mode in modes:
        if mode not in POOLING_OF_MODE:
            raise CheckpointError(f"{folder / 'config.json'} has the pooling mode {mode!r}, which is not supported")
    return tuple(POOLING_OF_MODE[mode] for mode in modes)


def splade_of(folder: Path, model: Mapping[str, Any]) -> Splade:
    """`model` is config_sentence_transformers.json."""
    settings = read_json_if_there(folder / "config.json")
    strategy, activation = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
    if strategy not in SPLADE_STRATEGIES or activation not in SPLADE_ACTIVATIONS:
        raise CheckpointError(f"{folder / 'config.json'} has {strategy!r} of {activation!r}, which is not supported")
    active_max = model.get("max_active_dims")
    if active_max is not None and (not isinstance(active_max, int) or active_max < 1):
        raise CheckpointError(f"{folder}: max_active_dims {active_max!r} is not a positive number")
    return Splade(sums=strategy == "sum", logs_twice=activation == "log1p_relu", active_max=active_max)


def check_transformer(folder: Path) -> None:
    task = transformer_settings(folder).get("transformer_task", "feature-extraction")
    if task not in TRANSFORMER_TASKS:
        raise CheckpointError(f"{folder} is a Transformer module for the task {task!r}, which is not supported")


def check_normalize(folder: Path) -> None:
    what = read_json_if_there(folder / "config.json").get("module_input_name", "sentence_embedding")
    if what != "sentence_embedding":
        raise CheckpointError(f"{folder / 'config.json'} normalises {what!r}, which is not supported")


def accept(folder: Path) -> None:
    """For modules that have nothing to check."""


# Each with what must hold of its folder. Dropout does nothing after training.
KNOWN_MODULES = {
    "Transformer": check_transformer,
    "MLMTransformer": accept,
    "Pooling": accept,
    "SpladePooling": accept,
    "Normalize": check_normalize,
    "Dropout": accept,
}
