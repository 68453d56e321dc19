"""What a checkpoint folder says of itself: kind, pooling, limits, labels, prompts, tokenizer fingerprint.

The tokenizer service and the engine both read it, each in its own process, so that neither needs the other to know
what the model is. Only the JSON files are opened; no torch, no tokenizers, no transformers.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from heddle.checkpoint.json_files import CheckpointError, field_of, read_json, read_json_if_there
from heddle.checkpoint.labels import labels_of
from heddle.checkpoint.language_models import AUTO, default_pooling, names_of, with_score
from heddle.checkpoint.m3 import M3Heads
from heddle.checkpoint.sentence_modules import (
    LogitScore,
    Pooling,
    PoolingSetting,
    SentenceModules,
    Splade,
    tasks_of,
    with_task_prompts,
)
from heddle.checkpoint.tokenizer_files import fingerprint_of
from heddle.checkpoint.vector_modules import Dense, VectorModule, width_after

# Embedding rows up to and including the padding id are never positions in these, as fairseq had it.
POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "mpnet", "longformer"}
)

PADDING_OF_FAIRSEQ = 1  # the id, where the config has none

# Tokenizers without a limit say 10**30.
LENGTH_SANE_MAX = 10_000_000


class ModelKind(enum.StrEnum):
    """What a model is for; values are those of heddle.v1.ModelKind, in lower case."""

    EMBEDDER = "embedder"
    MULTI_VECTOR_EMBEDDER = "multi_vector_embedder"
    SPARSE_EMBEDDER = "sparse_embedder"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"
    TOKEN_CLASSIFIER = "token_classifier"


EMBEDDERS = frozenset({ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER})
CLASSIFIERS = frozenset({ModelKind.RERANKER, ModelKind.CLASSIFIER, ModelKind.TOKEN_CLASSIFIER})

# Heads of language models, which an embedder is used without; any other is what a model is for.
HEAD = re.compile(r"For[A-Z]")
HEADS_OF_EMBEDDERS = ("ForCausalLM", "ForMaskedLM", "ForPreTraining")

# The class in Stanford's ColBERT, which is BERT with a linear of its tokens.
COLBERT = "HF_ColBERT"
COLBERT_DIMENSION = 128

# What configurations call the width of hidden states.
HIDDEN_SIZES = ("hidden_size", "dim", "d_model", "n_embd")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as its configuration files describe it, in the forms of transformers and sentence-transformers."""

    name: str  # what requests call the model
    folder: Path  # holds config.json, tokenizer and weights
    revision: str  # commit of the hub snapshot that the folder is, "" for any other folder
    config: Mapping[str, Any]  # config.json
    architecture: str  # class name in transformers, such as BertModel
    kind: ModelKind
    labels: tuple[str, ...]  # by index; () for embedders
    multi_label: bool  # labels are independent of each other: sigmoid, not softmax
    pooling: tuple[Pooling, ...]  # several are concatenated; () for what does not pool
    include_prompt: bool  # False: pooling leaves the prompt's tokens out
    token_modules: tuple[VectorModule, ...]  # applied to each token's vector, before pooling if there is any
    vector_modules: tuple[VectorModule, ...]  # applied to the pooled vectors
    splade: Splade | None  # for sparse embedders only
    logit_score: LogitScore | None  # for rerankers that are language models only
    m3: M3Heads | None  # for embedders that make sparse and ColBERT vectors, too
    normalizes: bool  # a Normalize module follows the pooling
    dimension: int  # of a vector; 0 if the model makes none
    token_dimension: int  # of a token's vector; 0 if the model makes none
    matryoshka: bool  # trained so that a vector's first components are a vector too
    tasks: tuple[str, ...]  # names that a request may set as its task; each has an adapter
    prompts: Mapping[str, str]  # text put before the input, by name
    default_prompt_name: str  # "" = none
    sequence_tokens_max: int  # special tokens included
    vocabulary_size: int  # token ids are smaller
    do_lower_case: bool  # texts are lower-cased before the tokenizer sees them
    tokenizer_fingerprint: str  # see `tokenizer_files.fingerprint_of`

    @classmethod
    def read(
        cls, folder: Path, name: str = "", pooling: PoolingSetting = "auto", score_tokens: str = AUTO
    ) -> "Checkpoint":
        """Raises CheckpointError, in one sentence that names the file, for what is missing, broken or not known."""
        modules = SentenceModules.read(folder).pooled_by(pooling)
        home = folder / modules.transformer_path
        config = read_json(home / "config.json")
        architecture = architecture_of(config, home)
        names = names_of(config, name, folder)
        modules = with_score(
            *(modules, config, architecture, home), names=names, score_tokens=score_tokens, pooling=pooling
        )
        modules = with_task_prompts(modules, config, home / "config.json")
        kind = kind_of(config, architecture, modules, home)
        pooled = modules.pooling or (default_pooling(config, architecture),)
        labels = labels_of(config, home)[: 1 if modules.logit_score else None] if kind in CLASSIFIERS else ()
        token_modules = token_modules_of(kind, modules, config, home)
        vector_modules = modules.vector_modules if kind is ModelKind.EMBEDDER else ()
        token_width = width_after(token_modules, hidden_size_of(config, home)) if kind in EMBEDDERS else 0
        sequence_tokens_max = sequence_tokens_max_of(home, config, modules)
        return cls(
            name=name or folder.name,
            folder=home,
            revision=folder.name if folder.parent.name == "snapshots" else "",
            config=config,
            architecture=architecture,
            kind=kind,
            labels=labels,
            multi_label=config.get("problem_type") == "multi_label_classification",
            pooling=pooled if kind is ModelKind.EMBEDDER else (),
            include_prompt=modules.include_prompt,
            token_modules=token_modules,
            vector_modules=vector_modules,
            splade=modules.splade,
            logit_score=modules.logit_score if kind is ModelKind.RERANKER else None,
            m3=M3Heads.read(home) if kind is ModelKind.EMBEDDER else None,
            normalizes=modules.normalizes,
            dimension=dimension_of(kind, modules, token_width, config, home),
            token_dimension=token_width,
            matryoshka=is_matryoshka(config, modules),
            tasks=tasks_of(config, home / "config.json") if kind is ModelKind.EMBEDDER else (),
            prompts=modules.prompts,
            default_prompt_name=modules.default_prompt_name,
            sequence_tokens_max=sequence_tokens_max,
            vocabulary_size=positive(config, "vocab_size", home),
            do_lower_case=modules.do_lower_case,
            tokenizer_fingerprint=fingerprint_of(home, config, sequence_tokens_max, modules, len(labels)),
        )


def architecture_of(config: Mapping[str, Any], folder: Path) -> str:
    path = folder / "config.json"
    architectures = field_of(config, "architectures", list, path, [])
    model_type = field_of(config, "model_type", str, path)
    if architectures and isinstance(architectures[0], str):
        return architectures[0]
    if model_type is not None:
        return f"{model_type}Model"
    raise CheckpointError(f"{path} names neither an architecture nor a model_type")


def kind_of(config: Mapping[str, Any], architecture: str, modules: SentenceModules, folder: Path) -> ModelKind:
    """The modules decide where there are any; without them the head that the architecture's name ends with."""
    if modules.splade is not None:
        return ModelKind.SPARSE_EMBEDDER
    if modules.pooling:
        return ModelKind.EMBEDDER
    if modules.logit_score is not None:
        return ModelKind.RERANKER
    if modules.token_modules is not None or architecture == COLBERT:
        return ModelKind.MULTI_VECTOR_EMBEDDER
    if architecture.endswith("ForSequenceClassification"):
        return ModelKind.RERANKER if len(labels_of(config, folder)) == 1 else ModelKind.CLASSIFIER
    if architecture.endswith("ForTokenClassification"):
        return ModelKind.TOKEN_CLASSIFIER
    if HEAD.search(architecture) and not architecture.endswith(HEADS_OF_EMBEDDERS):
        raise CheckpointError(
            f"{folder / 'config.json'}: what a {architecture} answers is not supported (--pooling makes it an embedder)"
        )
    return ModelKind.EMBEDDER


def token_modules_of(
    kind: ModelKind, modules: SentenceModules, config: Mapping[str, Any], folder: Path
) -> tuple[VectorModule, ...]:
    if kind not in EMBEDDERS:
        return ()
    if kind is ModelKind.EMBEDDER or modules.token_modules is not None:
        return modules.token_modules or ()
    metadata = folder / "artifact.metadata"
    outputs = field_of(read_json_if_there(metadata), "dim", int, metadata, COLBERT_DIMENSION)
    return (Dense(folder, hidden_size_of(config, folder), outputs, has_bias=False, activation="Identity"),)


def dimension_of(
    kind: ModelKind, modules: SentenceModules, token_width: int, config: Mapping[str, Any], folder: Path
) -> int:
    """`token_width` is the width of the tokens' vectors, 0 if the model makes none."""
    if kind is ModelKind.SPARSE_EMBEDDER:
        return positive(config, "vocab_size", folder)
    pooled = token_width * max(len(modules.pooling), 1)
    dimension = width_after(modules.vector_modules, pooled) if kind is ModelKind.EMBEDDER else pooled
    return min(dimension, modules.truncate_dim or dimension)


def hidden_size_of(config: Mapping[str, Any], folder: Path) -> int:
    return positive(config, next((name for name in HIDDEN_SIZES if name in config), HIDDEN_SIZES[0]), folder)


def is_matryoshka(config: Mapping[str, Any], modules: SentenceModules) -> bool:
    """As vLLM reads it off config.json, or because the checkpoint cuts its own vectors."""
    return bool(config.get("is_matryoshka") or config.get("matryoshka_dimensions") or modules.truncate_dim)


def sequence_tokens_max_of(folder: Path, config: Mapping[str, Any], modules: SentenceModules) -> int:
    """What sentence-transformers was told, else the tokenizer; never more than there are positions."""
    if config.get("model_type") in POSITIONS_AFTER_PADDING:
        field_of(config, "pad_token_id", int, folder / "config.json")
    tokenizer_max = read_json_if_there(folder / "tokenizer_config.json").get("model_max_length")
    stated = modules.sequence_tokens_max or tokenizer_max
    limits = [int(limit) for limit in (stated, positions_of(config)) if is_sane(limit)]
    if not limits:
        raise CheckpointError(f"{folder} says nowhere how many tokens a sequence may have")
    return min(limits)


def is_sane(length: Any) -> TypeGuard[float]:
    return isinstance(length, int | float) and 0 < length <= LENGTH_SANE_MAX


def positions_of(config: Mapping[str, Any]) -> int | None:
    """How many tokens there are positions for; None if there is no telling."""
    # Nomic-BERT has both, the other being the length that it was trained with.
    rows = config.get("n_positions", config.get("max_position_embeddings"))
    if not isinstance(rows, int):
        return None
    return max(rows - first_position_of(config), stretched_positions(config))


def first_position_of(config: Mapping[str, Any]) -> int:
    """The row that a sequence's first token has in the table of positions."""
    if config.get("model_type") not in POSITIONS_AFTER_PADDING:
        return 0
    padding = None if config.get("model_type") == "mpnet" else config.get("pad_token_id")  # MPNet's code always takes 1
    return (PADDING_OF_FAIRSEQ if padding is None else int(padding)) + 1


def stretched_positions(config: Mapping[str, Any]) -> int:
    """Those that YaRN makes of what a model was trained on, where the config says both; else 0. Users add the scaling
    to a config and leave max_position_embeddings as it was."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or "yarn" not in (rope.get("rope_type"), rope.get("type")):
        return 0
    trained, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return int(trained * factor) if is_sane(trained) and is_sane(factor) else 0


def positive(config: Mapping[str, Any], name: str, folder: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value <= 0:
        raise CheckpointError(f"{folder / 'config.json'} has no {name}, or one that is not a positive number")
    return value
