"""Decides whether a causal language model is served as a reranker, scored by one or two logits, or as an embedder.

Many rerankers are published as a plain language model, and their files do not state the purpose. Known rerankers are
recognised by name. For others the operator sets `score_tokens` or `pooling`; without either, the model is rejected.
Called by `checkpoint`, and by `tokenizer_svc.text.rerank_prompts` for the prompts of the same models.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heddle.checkpoint.causality import is_causal
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import LogitScore, Pooling, PoolingSetting, SentenceModules
from heddle.checkpoint.tokenizer_files import look_up_token_ids

LANGUAGE_MODEL = "ForCausalLM"

# The score tokens are those of the checkpoint, or of the table below if it has the model.
AUTO = "auto"

# The id of a token, its spelling, or, for a spelling that is a number, the spelling in quotes.
SCORE_TOKEN = re.compile(r'\s*(?:"(?P<quoted>[^"]+)"|(?P<id>\d+)|(?P<plain>[^\s",]+))\s*')

# Names of poolings in the config.json of NVIDIA's bidirectional decoders.
NEMO_POOLINGS = {"avg": Pooling.MEAN, "cls": Pooling.CLS, "last": Pooling.LAST_TOKEN}

# Recognises embedders without modules.json by their name.
EMBEDDER_NAME = re.compile(r"embed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnownReranker:
    """A family of rerankers with the same prompt and the same score tokens."""

    name: str  # of the prompt in tokenizer_svc.text.rerank_prompts
    pattern: re.Pattern[str]  # found in the names of a checkpoint
    score_tokens: str  # in the form of the setting


# By config.json's model_type.
KNOWN_RERANKERS = {
    # Model card: the softmax over both logits, which is the sigmoid of their difference.
    "qwen3": KnownReranker("qwen3-reranker", re.compile(r"qwen.?3.rerank", re.IGNORECASE), "yes,no"),
    # mxbai_rerank_v2.py of the package mxbai-rerank: the difference of both logits.
    "qwen2": KnownReranker("mxbai-rerank-v2", re.compile(r"mxbai.rerank", re.IGNORECASE), '"1","0"'),
    # Model card: the logit of this token.
    "gemma": KnownReranker("bge-reranker-gemma", re.compile(r"bge.reranker", re.IGNORECASE), "Yes"),
}


def add_logit_score(
    modules: SentenceModules,
    config: Mapping[str, Any],
    architecture: str,
    folder: Path,
    *,
    names: str,
    score_tokens: str,
    pooling: PoolingSetting,
) -> SentenceModules:
    """Returns `modules`, with a logit score if the checkpoint is a language model that reranks. `folder` has the
    tokenizer's files. `pooling` is the operator's setting, which `modules` already reflect. Raises CheckpointError for
    a language model with an unknown purpose, and for settings that contradict the model or each other."""
    if score_tokens != AUTO:
        if pooling != "auto":
            raise CheckpointError("score_tokens is for rerankers and pooling for embedders: set only one of them")
        if not architecture.endswith(LANGUAGE_MODEL):
            raise CheckpointError(
                f"score_tokens is set, but {folder} holds a {architecture}, which is not a causal language model"
            )
        return replace_with_score(modules, build_logit_score(score_tokens, folder))
    if modules.states_use or not architecture.endswith(LANGUAGE_MODEL) or not is_causal(config):
        return modules
    known = find_known_reranker(config, names)
    if known is not None:
        return replace_with_score(modules, build_logit_score(known.score_tokens, folder))
    if EMBEDDER_NAME.search(names):
        return modules
    raise CheckpointError(
        f"{folder}: a {architecture} without modules.json can be an embedder or a reranker: "
        f"set --pooling (such as last_token) for an embedder, or --score-tokens (such as yes,no) for a reranker"
    )


def replace_with_score(modules: SentenceModules, score: LogitScore) -> SentenceModules:
    return replace(modules, pooling=(), token_modules=None, vector_modules=(), splade=None, logit_score=score)


def join_names(config: Mapping[str, Any], name: str, folder: Path) -> str:
    """Returns the names of a checkpoint: the operator's, that in config.json, and that of the folder or repository."""
    folder = folder.absolute()  # "." has no name
    is_snapshot = folder.parent.name == "snapshots"
    return f"{name} {config.get('_name_or_path') or ''} {folder.parent.parent.name if is_snapshot else folder.name}"


def find_known_reranker(config: Mapping[str, Any], names: str) -> KnownReranker | None:
    known = KNOWN_RERANKERS.get(str(config.get("model_type")))
    return known if known is not None and known.pattern.search(names) else None


def uses_score_tokens(known: KnownReranker, score: LogitScore, folder: Path) -> bool:
    """Whether `score` compares the tokens of `known`. `folder` has the tokenizer's files."""
    try:
        return build_logit_score(known.score_tokens, folder) == score
    except CheckpointError:  # the vocabulary lacks these tokens
        return False


def build_logit_score(score_tokens: str, folder: Path) -> LogitScore:
    """Raises CheckpointError for a spelling that is not in the vocabulary of the tokenizer in `folder`."""
    stated = parse_score_tokens(score_tokens)
    spellings = [token for token in stated if isinstance(token, str)]
    ids = look_up_token_ids(folder, spellings) if spellings else {}
    true_id, *false_id = (token if isinstance(token, int) else ids[token] for token in stated)
    return LogitScore(true_id, false_id[0] if false_id else None)


def parse_score_tokens(setting: str) -> list[int | str]:
    """Returns ids and spellings, that of the token for "yes" first. Raises ValueError unless there are one or two."""
    matches = [SCORE_TOKEN.fullmatch(part) for part in setting.split(",")]
    tokens = [
        int(match["id"]) if match["id"] else match["quoted"] or match["plain"] for match in matches if match is not None
    ]
    if len(tokens) != len(matches) or len(tokens) > 2:
        raise ValueError(
            f"score_tokens must be auto, or one or two tokens separated by a comma, not {setting!r}: write ids, "
            f'spellings, or spellings in quotes if they are numbers, such as yes,no or 9693,2152 or "1","0"'
        )
    return tokens


def get_default_pooling(config: Mapping[str, Any], architecture: str) -> Pooling:
    """For a checkpoint without modules.json: the pooling in config.json, else the choice of sentence-transformers."""
    if config.get("model_type") == "llama_bidirec" and str(config.get("pooling")) in NEMO_POOLINGS:
        return NEMO_POOLINGS[config["pooling"]]
    return Pooling.LAST_TOKEN if architecture.endswith(LANGUAGE_MODEL) and is_causal(config) else Pooling.MEAN
