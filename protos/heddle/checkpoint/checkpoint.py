"""Describes a checkpoint folder: kind, pooling, limits, labels, prompts, tokenizer fingerprint.

The tokenizer and the engine each read the folder, so neither depends on the other to know the model. Reading needs no
torch, tokenizers or transformers: it opens the JSON files and the headers of safetensors files.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from heddle.checkpoint.builds import read_revision
from heddle.checkpoint.heads import M3Heads, read_labels
from heddle.checkpoint.json_files import CheckpointError, get_field, get_positive, read_json, read_json_if_exists
from heddle.checkpoint.language_models import AUTO, add_logit_score, get_default_pooling, join_names
from heddle.checkpoint.sentence_modules import (
    LogitScore,
    Pooling,
    PoolingSetting,
    SentenceModules,
    Splade,
    add_task_prompts,
    read_tasks,
)
from heddle.checkpoint.tokenizer_files import compute_fingerprint
from heddle.checkpoint.vector_modules import Dense, VectorModule, compute_width

# In these models, which follow fairseq, the positions begin after the row of the padding id.
POSITIONS_AFTER_PADDING = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "mpnet", "longformer"}
)

FAIRSEQ_PADDING_ID = 1  # if config.json has no pad_token_id

# Tokenizers without a limit state 10**30.
PLAUSIBLE_LENGTH_MAX = 10_000_000


class ModelKind(enum.StrEnum):
    """The task of a model. Values are those of heddle.v1.ModelKind in lower case."""

    EMBEDDER = "embedder"
    MULTI_VECTOR_EMBEDDER = "multi_vector_embedder"
    SPARSE_EMBEDDER = "sparse_embedder"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"
    TOKEN_CLASSIFIER = "token_classifier"


EMBEDDERS = frozenset({ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER})
CLASSIFIERS = frozenset({ModelKind.RERANKER, ModelKind.CLASSIFIER, ModelKind.TOKEN_CLASSIFIER})

# An embedder is used without the head of a language model. Any other head determines the task.
HEAD = re.compile(r"For[A-Z]")
EMBEDDER_HEADS = ("ForCausalLM", "ForMaskedLM", "ForPreTraining")

# The class of Stanford's ColBERT: BERT with a linear layer on each token.
COLBERT = "HF_ColBERT"
COLBERT_DIMENSION = 128

# Names of the width of hidden states in config.json.
HIDDEN_SIZES = ("hidden_size", "dim", "d_model", "n_embd")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, as the files of transformers and sentence-transformers describe it."""

    name: str  # the model's name in requests
    folder: Path  # holds config.json, tokenizer and weights
    revision: str  # commit of a hub snapshot, or of the source of a build; "" for any other folder
    config: Mapping[str, Any]  # config.json
    architecture: str  # class in transformers, such as BertModel
    kind: ModelKind
    labels: tuple[str, ...]  # by index; () for embedders
    multi_label: bool  # labels are independent: sigmoid, not softmax
    pooling: tuple[Pooling, ...]  # several are concatenated; () without pooling
    include_prompt: bool  # False: pooling ignores the tokens of the prompt
    token_modules: tuple[VectorModule, ...]  # applied to the vector of each token, before pooling
    vector_modules: tuple[VectorModule, ...]  # applied to pooled vectors
    splade: Splade | None  # for sparse embedders only
    logit_score: LogitScore | None  # for rerankers that are language models only
    m3: M3Heads | None  # for embedders that also make sparse and ColBERT vectors
    normalizes: bool  # a Normalize module follows the pooling
    dimension: int  # of a vector; 0 if the model makes none
    token_dimension: int  # of a token's vector; 0 if the model makes none
    matryoshka: bool  # the first components of a vector can be used as a shorter vector
    tasks: tuple[str, ...]  # that a request may name; each has an adapter
    prompts: Mapping[str, str]  # texts put before the input, by name
    default_prompt_name: str  # "" = none
    sequence_tokens_max: int  # special tokens included
    vocabulary_size: int  # token ids are smaller
    do_lower_case: bool  # texts are lower-cased before tokenization
    tokenizer_fingerprint: str  # see `tokenizer_files.compute_fingerprint`

    @classmethod
    def read(
        cls, folder: Path, name: str = "", pooling: PoolingSetting = "auto", score_tokens: str = AUTO
    ) -> "Checkpoint":
        """Raises CheckpointError for files that are missing, broken or not supported."""
        modules = SentenceModules.read(folder).with_pooling(pooling)
        home = folder / modules.transformer_path
        config = read_json(home / "config.json")
        architecture = read_architecture(config, home)
        modules = add_logit_score(
            modules,
            config,
            architecture,
            home,
            names=join_names(config, name, folder),
            score_tokens=score_tokens,
            pooling=pooling,
        )
        modules = add_task_prompts(modules, config, home / "config.json")
        kind = decide_kind(config, architecture, modules, home)
        pooled = modules.pooling or (get_default_pooling(config, architecture),)
        labels = read_labels(config, home)[: 1 if modules.logit_score else None] if kind in CLASSIFIERS else ()
        token_modules = select_token_modules(kind, modules, config, home)
        vector_modules = modules.vector_modules if kind is ModelKind.EMBEDDER else ()
        token_width = compute_width(token_modules, get_hidden_size(config, home)) if kind in EMBEDDERS else 0
        sequence_tokens_max = compute_sequence_tokens_max(home, config, modules)
        return cls(
            name=name or folder.name,
            folder=home,
            revision=read_revision(folder),
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
            dimension=compute_dimension(kind, modules, token_width, config, home),
            token_dimension=token_width,
            matryoshka=is_matryoshka(config, modules),
            tasks=read_tasks(config, home / "config.json") if kind is ModelKind.EMBEDDER else (),
            prompts=modules.prompts,
            default_prompt_name=modules.default_prompt_name,
            sequence_tokens_max=sequence_tokens_max,
            vocabulary_size=get_positive(config, "vocab_size", home / "config.json"),
            do_lower_case=modules.do_lower_case,
            tokenizer_fingerprint=compute_fingerprint(home, config, sequence_tokens_max, modules, len(labels)),
        )


def read_architecture(config: Mapping[str, Any], folder: Path) -> str:
    path = folder / "config.json"
    architectures = get_field(config, "architectures", list, path, [])
    model_type = get_field(config, "model_type", str, path)
    if architectures and isinstance(architectures[0], str):
        return architectures[0]
    if model_type is not None:
        return f"{model_type}Model"
    raise CheckpointError(f"{path} names neither an architecture nor a model_type")


def decide_kind(config: Mapping[str, Any], architecture: str, modules: SentenceModules, folder: Path) -> ModelKind:
    """The modules determine the kind. Without modules it is the head in the architecture's name."""
    if modules.splade is not None:
        return ModelKind.SPARSE_EMBEDDER
    if modules.pooling:
        return ModelKind.EMBEDDER
    if modules.logit_score is not None:
        return ModelKind.RERANKER
    if modules.token_modules is not None or architecture == COLBERT:
        return ModelKind.MULTI_VECTOR_EMBEDDER
    if architecture.endswith("ForSequenceClassification"):
        return ModelKind.RERANKER if len(read_labels(config, folder)) == 1 else ModelKind.CLASSIFIER
    if architecture.endswith("ForTokenClassification"):
        return ModelKind.TOKEN_CLASSIFIER
    if HEAD.search(architecture) and not architecture.endswith(EMBEDDER_HEADS):
        raise CheckpointError(
            f"{folder / 'config.json'}: the output of {architecture} is not supported (--pooling makes it an embedder)"
        )
    return ModelKind.EMBEDDER


def select_token_modules(
    kind: ModelKind, modules: SentenceModules, config: Mapping[str, Any], folder: Path
) -> tuple[VectorModule, ...]:
    if kind not in EMBEDDERS:
        return ()
    if kind is ModelKind.EMBEDDER or modules.token_modules is not None:
        return modules.token_modules or ()
    metadata = folder / "artifact.metadata"
    outputs = get_field(read_json_if_exists(metadata), "dim", int, metadata, COLBERT_DIMENSION)
    return (Dense(folder, get_hidden_size(config, folder), outputs, has_bias=False, activation="Identity"),)


def compute_dimension(
    kind: ModelKind, modules: SentenceModules, token_width: int, config: Mapping[str, Any], folder: Path
) -> int:
    """`token_width` is the width of the token vectors, 0 if the model makes none."""
    if kind is ModelKind.SPARSE_EMBEDDER:
        return get_positive(config, "vocab_size", folder / "config.json")
    pooled = token_width * max(len(modules.pooling), 1)
    dimension = compute_width(modules.vector_modules, pooled) if kind is ModelKind.EMBEDDER else pooled
    return min(dimension, modules.truncate_dim or dimension)


def get_hidden_size(config: Mapping[str, Any], folder: Path) -> int:
    name = next((name for name in HIDDEN_SIZES if name in config), HIDDEN_SIZES[0])
    return get_positive(config, name, folder / "config.json")


def is_matryoshka(config: Mapping[str, Any], modules: SentenceModules) -> bool:
    """Follows vLLM, which reads config.json. A checkpoint that truncates its own vectors counts too."""
    return bool(config.get("is_matryoshka") or config.get("matryoshka_dimensions") or modules.truncate_dim)


def compute_sequence_tokens_max(folder: Path, config: Mapping[str, Any], modules: SentenceModules) -> int:
    """Returns the limit of sentence-transformers, else that of the tokenizer, but at most the number of positions."""
    if config.get("model_type") in POSITIONS_AFTER_PADDING:
        get_field(config, "pad_token_id", int, folder / "config.json")
    tokenizer_max = read_json_if_exists(folder / "tokenizer_config.json").get("model_max_length")
    stated = modules.sequence_tokens_max or tokenizer_max
    limits = [int(limit) for limit in (stated, get_max_positions(config)) if is_plausible(limit)]
    if not limits:
        raise CheckpointError(f"{folder} does not state how many tokens a sequence may have")
    return min(limits)


def is_plausible(length: Any) -> TypeGuard[float]:
    return isinstance(length, int | float) and 0 < length <= PLAUSIBLE_LENGTH_MAX


def get_max_positions(config: Mapping[str, Any]) -> int | None:
    """Returns None if config.json does not state the number."""
    # Nomic-BERT has both fields. Its max_position_embeddings is the length that it was trained with.
    rows = config.get("n_positions", config.get("max_position_embeddings"))
    if not isinstance(rows, int):
        return None
    return max(rows - get_first_position(config), get_yarn_positions(config))


def get_first_position(config: Mapping[str, Any]) -> int:
    """Returns the row of a sequence's first token in the table of position embeddings."""
    if config.get("model_type") not in POSITIONS_AFTER_PADDING:
        return 0
    padding = None if config.get("model_type") == "mpnet" else config.get("pad_token_id")  # MPNet's code always uses 1
    return (FAIRSEQ_PADDING_ID if padding is None else int(padding)) + 1


def get_yarn_positions(config: Mapping[str, Any]) -> int:
    """Returns the number of positions after scaling with YaRN, or 0 without it. Users often add the scaling to
    config.json and leave max_position_embeddings unchanged."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or "yarn" not in (rope.get("rope_type"), rope.get("type")):
        return 0
    trained, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return int(trained * factor) if is_plausible(trained) and is_plausible(factor) else 0
