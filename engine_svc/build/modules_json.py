"""Adds pooling, SPLADE or score modules to modules.json if the checkpoint's own files do not name them.

The pooling of an embedder, or the score tokens of a reranker, may come from the checkpoint's name or from settings. An
artifact stores them in the files of sentence-transformers, so that it is served the same way under any name.
`configuration` calls this.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.checkpoint import get_hidden_size
from heddle.checkpoint.json_files import read_json_if_exists
from heddle.checkpoint.module_listing import SENTENCE, TOKENS, TRANSFORMERS, read_entries, read_modules
from heddle.checkpoint.sentence_modules import (
    MODE_BY_BOOLEAN,
    MODEL_FILE,
    POOLING_BY_MODE,
    LogitScore,
    Pooling,
    SentenceModules,
    Splade,
)
from heddle.checkpoint.vector_modules import compute_width

LISTING = "modules.json"

PACKAGE = "sentence_transformers.models"
SPARSE_PACKAGE = "sentence_transformers.sparse_encoder.models"
RERANKER_PACKAGE = "sentence_transformers.cross_encoder.modules"

POOLING_FOLDER, SPLADE_FOLDER, SCORE_FOLDER = "1_Pooling", "1_SpladePooling", "1_LogitScore"

MODE_BY_POOLING = {pooling: mode for mode, pooling in POOLING_BY_MODE.items()}

Listing = Sequence[Mapping[str, Any]]
# File contents by path relative to the artifact.
Contents = dict[str, bytes]


def join(folder: str, name: str) -> str:
    return (PurePosixPath(folder) / name).as_posix()


def encode(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def get_kind(entry: Mapping[str, Any]) -> str:
    return str(entry["type"]).rpartition(".")[2]


def read_listing(root: Path) -> Listing:
    """Returns an empty list without modules.json. Raises CheckpointError."""
    path = root / LISTING
    return read_entries(path) if path.is_file() else []


def add_missing_modules(root: Path, checkpoint: Checkpoint, stated: Listing) -> tuple[Listing, Contents]:
    """Returns the content of modules.json and the configs of its new modules. Returns `stated` unchanged if it is
    complete. `checkpoint` was read from `root`."""
    modules = SentenceModules.read(root)
    match checkpoint.kind:
        case ModelKind.EMBEDDER if checkpoint.pooling != modules.pooling:
            return add_pooling(root, checkpoint, stated, modules)
        case ModelKind.SPARSE_EMBEDDER if checkpoint.splade is not None and modules.splade is None:
            return add_splade(checkpoint.splade, stated)
        case ModelKind.RERANKER if checkpoint.logit_score not in (None, modules.logit_score):
            assert checkpoint.logit_score is not None
            return add_score_head(checkpoint.logit_score, stated)
    return stated, {}


def add_pooling(
    root: Path, checkpoint: Checkpoint, stated: Listing, modules: SentenceModules
) -> tuple[Listing, Contents]:
    """Inserts pooling after modules that work on tokens and before those that work on vectors."""
    subjects = [module.subject for module in read_modules(root, read_json_if_exists(root / MODEL_FILE))]
    own = [(entry, subject) for entry, subject in zip(stated, subjects, strict=True) if belongs_to_embedder(entry)]
    token_modules = [entry for entry, subject in own if subject == TOKENS and modules.pooling]
    vector_modules = [entry for entry, subject in own if subject == SENTENCE]
    listing = [
        *list_transformers(stated),
        *token_modules,
        make_entry(POOLING_FOLDER, f"{PACKAGE}.Pooling"),
        *vector_modules,
    ]
    width = compute_width(checkpoint.token_modules, get_hidden_size(checkpoint.config, checkpoint.folder))
    settings = describe_pooling(checkpoint.pooling, width, include_prompt=checkpoint.include_prompt)
    return renumber(listing), {f"{POOLING_FOLDER}/config.json": encode(settings)}


def describe_pooling(pooling: Sequence[Pooling], width: int, *, include_prompt: bool) -> Mapping[str, Any]:
    """Uses the format of sentence-transformers before 5.4, which newer versions read too."""
    modes = {MODE_BY_POOLING[one] for one in pooling}
    chosen = {name: mode in modes for name, mode in MODE_BY_BOOLEAN.items()}
    return {"word_embedding_dimension": width, **chosen, "include_prompt": include_prompt}


def belongs_to_embedder(entry: Mapping[str, Any]) -> bool:
    return get_kind(entry) not in (*TRANSFORMERS, "Pooling", "SpladePooling", "LogitScore", "MultiVectorMask")


def add_splade(splade: Splade, stated: Listing) -> tuple[Listing, Contents]:
    settings = {
        "pooling_strategy": "sum" if splade.sums else "max",
        "activation_function": "log1p_relu" if splade.logs_twice else "relu",
    }
    listing = [*list_transformers(stated), make_entry(SPLADE_FOLDER, f"{SPARSE_PACKAGE}.SpladePooling")]
    return renumber(listing), {f"{SPLADE_FOLDER}/config.json": encode(settings)}


def add_score_head(score: LogitScore, stated: Listing) -> tuple[Listing, Contents]:
    settings = {"true_token_id": score.true_id, "false_token_id": score.false_id}
    listing = [*list_transformers(stated), make_entry(SCORE_FOLDER, f"{RERANKER_PACKAGE}.LogitScore")]
    return renumber(listing), {f"{SCORE_FOLDER}/config.json": encode(settings)}


def list_transformers(stated: Listing) -> Listing:
    found = [entry for entry in stated if get_kind(entry) in TRANSFORMERS]
    return found or [make_entry("", f"{PACKAGE}.Transformer")]


def make_entry(path: str, type_: str) -> Mapping[str, Any]:
    return {"idx": 0, "name": "", "path": path, "type": type_}


def renumber(listing: Listing) -> Listing:
    return [{**entry, "idx": index, "name": str(index)} for index, entry in enumerate(listing)]
