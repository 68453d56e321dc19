"""Reads the files of sentence-transformers in a checkpoint: modules, their settings, and prompts.

Supports the format of versions before 5.4 (`sentence_transformers.models.Pooling`, one boolean per pooling mode) and
the newer one (`pooling_mode`). Also reads the tasks of an embedder with adapters from config.json, since they bring
prompts. `checkpoint` combines the result with config.json.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from heddle.checkpoint.json_files import CheckpointError, get_field, read_json_if_exists
from heddle.checkpoint.module_listing import SENTENCE, TOKENS, TRANSFORMERS, Module, read_modules
from heddle.checkpoint.vector_modules import VectorModule, drop_trailing_normalize, read_vector_modules

# Settings of the whole model.
MODEL_FILE = "config_sentence_transformers.json"

# The first file that exists is used.
TRANSFORMER_SETTINGS_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

# sentence-transformers gives every model these prompts. They are empty unless the checkpoint states a text.
PLACEHOLDERS = ("query", "document")

TRANSFORMER_TASKS = frozenset({"feature-extraction", "sequence-classification", "fill-mask", "text-generation"})


class Pooling(enum.StrEnum):
    """How the hidden states of a sequence become one vector."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    WEIGHTED_MEAN = "weighted_mean"
    LAST_TOKEN = "last_token"


# The operator's setting. auto takes the pooling of the checkpoint.
PoolingSetting = Literal["auto", "cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token", "splade"]

POOLING_BY_MODE = {
    "cls": Pooling.CLS,
    "max": Pooling.MAX,
    "mean": Pooling.MEAN,
    "mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "weightedmean": Pooling.WEIGHTED_MEAN,
    "lasttoken": Pooling.LAST_TOKEN,
}

# In the order in which sentence-transformers concatenates them.
MODE_BY_BOOLEAN = {
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
    """How SpladePooling turns the logits of a sequence into one sparse vector."""

    sums: bool = False  # the sum over the tokens, not their maximum
    logs_twice: bool = False  # log(1 + log(1 + relu(logit))), not log(1 + relu(logit))
    active_max: int | None = None  # keep only this many components, the largest; None = all


@dataclass(frozen=True, slots=True)
class LogitScore:
    """The score of a reranker that is a language model: the difference of the logits of two tokens."""

    true_id: int
    false_id: int | None  # None: the score is the logit of `true_id`


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """The modules of a checkpoint. The defaults are those of a folder without files of sentence-transformers."""

    transformer_path: str = ""  # folder of config.json, relative to that of the checkpoint
    pooling: tuple[Pooling, ...] = ()  # () = no Pooling module
    include_prompt: bool = True
    # Applied to the vector of each token. If this is not None in a model without pooling, it is a multi-vector model
    # such as ColBERT.
    token_modules: tuple[VectorModule, ...] | None = None
    vector_modules: tuple[VectorModule, ...] = ()  # applied to pooled vectors, without the last Normalize
    normalizes: bool = False  # the last module is Normalize
    splade: Splade | None = None  # None = no SpladePooling module
    logit_score: LogitScore | None = None  # None = no LogitScore module
    sequence_tokens_max: int | None = None
    do_lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str = ""
    truncate_dim: int | None = None  # vectors are cut to this many components

    @classmethod
    def read(cls, folder: Path) -> "SentenceModules":
        """Raises CheckpointError for files that are broken or not supported."""
        path = folder / MODEL_FILE
        model = read_json_if_exists(path)
        modules = read_modules(folder, model)
        by_kind = {module.kind: module for module in modules}
        transformer = next((module for module in modules if module.kind in TRANSFORMERS), None)
        place, settings = read_transformer_settings(transformer.folder if transformer else folder)
        pooling = by_kind.get("Pooling")
        stated_modules = read_vector_modules(modules, SENTENCE)
        vector_modules = drop_trailing_normalize(stated_modules)
        prompts = read_prompts(model, path)
        default_prompt_name = get_field(model, "default_prompt_name", str, path, "")
        if default_prompt_name in PLACEHOLDERS and default_prompt_name not in prompts:
            default_prompt_name = ""
        if default_prompt_name and default_prompt_name not in prompts:
            raise CheckpointError(f"{folder}: the default prompt {default_prompt_name!r} is not among the prompts")
        return cls(
            transformer_path=str(transformer.folder.relative_to(folder)) if transformer else "",
            pooling=read_pooling(pooling) if pooling else (),
            include_prompt=read_include_prompt(pooling) if pooling else True,
            token_modules=read_token_modules(modules),
            vector_modules=vector_modules,
            normalizes=vector_modules != stated_modules,
            splade=read_splade(by_kind["SpladePooling"], model) if "SpladePooling" in by_kind else None,
            logit_score=read_logit_score(by_kind["LogitScore"]) if "LogitScore" in by_kind else None,
            sequence_tokens_max=read_sequence_tokens_max(settings, place),
            do_lower_case=bool(settings.get("do_lower_case")),
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            truncate_dim=read_truncate_dim(model, path),
        )

    @property
    def states_use(self) -> bool:
        """Whether a module states what the hidden states are used for."""
        return bool(self.pooling) or any(
            module is not None for module in (self.token_modules, self.splade, self.logit_score)
        )

    def with_pooling(self, setting: PoolingSetting) -> "SentenceModules":
        """Replaces the pooling of the checkpoint with that of the setting."""
        if setting == "auto":
            return self
        if setting == "splade":
            return replace(self, pooling=(), token_modules=None, splade=self.splade or Splade())
        token_modules = self.token_modules if self.pooling else None
        return replace(self, pooling=(Pooling(setting),), token_modules=token_modules, splade=None)


def read_prompts(model: Mapping[str, Any], path: Path) -> Mapping[str, str]:
    """A prompt may be null: it has no text."""
    prompts = get_field(model, "prompts", dict, path, {})
    for name, text in prompts.items():
        if not isinstance(text, str | None):
            raise CheckpointError(f"{path}: prompts has {text!r} as {name}, which is not a text")
    return {name: text or "" for name, text in prompts.items()}


def read_truncate_dim(model: Mapping[str, Any], path: Path) -> int | None:
    dimensions = get_field(model, "truncate_dim", int, path)
    if dimensions is not None and dimensions < 1:
        raise CheckpointError(f"{path}: truncate_dim {dimensions} is not a positive number")
    return dimensions


def read_sequence_tokens_max(settings: Mapping[str, Any], path: Path) -> int | None:
    tokens = get_field(settings, "max_seq_length", float, path)
    return None if tokens is None else int(tokens)


def read_include_prompt(pooling: Module) -> bool:
    return get_field(pooling.settings, "include_prompt", bool, pooling.folder / "config.json", default=True)


def read_transformer_settings(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Also returns the file of the settings."""
    for name in TRANSFORMER_SETTINGS_FILES:
        path = folder / name
        settings = read_json_if_exists(path)
        if settings:
            task = get_field(settings, "transformer_task", str, path, "feature-extraction")
            if task not in TRANSFORMER_TASKS:
                raise CheckpointError(f"{folder} is a Transformer module for the task {task!r}, which is not supported")
            output = get_field(settings, "module_output_name", str, path, TOKENS)
            if task == "feature-extraction" and output != TOKENS:
                raise CheckpointError(f"{path}: module_output_name {output!r} is not supported")
            return path, settings
    return folder / TRANSFORMER_SETTINGS_FILES[0], {}


def read_pooling(module: Module) -> tuple[Pooling, ...]:
    settings, place = module.settings, module.folder / "config.json"
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in MODE_BY_BOOLEAN.items() if settings.get(name)] or ["mean"]
    if isinstance(modes, str):
        modes = [modes]
    if not isinstance(modes, list):
        raise CheckpointError(f"{place}: pooling_mode {modes!r} is neither a text nor a list of them")
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLING_BY_MODE:
            raise CheckpointError(f"{place} has the pooling mode {mode!r}, which is not supported")
    return tuple(POOLING_BY_MODE[mode] for mode in modes)


def read_token_modules(modules: Sequence[Module]) -> tuple[VectorModule, ...] | None:
    """Returns () for a multi-vector model that has no modules of tokens, None for all other models without them."""
    if not any(module.subject == TOKENS or module.kind == "MultiVectorMask" for module in modules):
        return None
    return read_vector_modules(modules, TOKENS)


def read_splade(module: Module, model: Mapping[str, Any]) -> Splade:
    """`model` is config_sentence_transformers.json."""
    settings, folder = module.settings, module.folder
    strategy, activation = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
    if strategy not in SPLADE_STRATEGIES or activation not in SPLADE_ACTIVATIONS:
        raise CheckpointError(f"{folder / 'config.json'} has {strategy!r} of {activation!r}, which is not supported")
    active_max = model.get("max_active_dims")
    if active_max is not None and (not isinstance(active_max, int) or active_max < 1):
        raise CheckpointError(f"{folder}: max_active_dims {active_max!r} is not a positive number")
    return Splade(sums=strategy == "sum", logs_twice=activation == "log1p_relu", active_max=active_max)


def read_logit_score(module: Module) -> LogitScore:
    true_id, false_id = module.settings.get("true_token_id"), module.settings.get("false_token_id")
    if not isinstance(true_id, int) or not isinstance(false_id, int | None):
        raise CheckpointError(f"{module.folder / 'config.json'} does not name the tokens whose logits are the score")
    return LogitScore(true_id, false_id)


def read_tasks(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Returns the tasks that requests may name (jina-embeddings-v3). Each has an adapter; the order is that of the
    stored adapters. `path` is that of config.json. Raises CheckpointError."""
    names = config.get("lora_adaptations") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: lora_adaptations {names!r} is not a list of names")
    return () if config.get("load_trained_adapters") is False else tuple(names)


def add_task_prompts(modules: SentenceModules, config: Mapping[str, Any], path: Path) -> SentenceModules:
    """Adds the prompts of config.json, as Jina's code does. A prompt of the same name in the files of
    sentence-transformers takes precedence. Raises CheckpointError."""
    instructions = get_field(config, "task_instructions", dict, path, {})
    prompts = {task: str(instructions[task] or "") for task in read_tasks(config, path) if task in instructions}
    return replace(modules, prompts={**prompts, **modules.prompts})
