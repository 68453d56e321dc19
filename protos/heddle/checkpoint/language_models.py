"""Decides whether a causal language model is served as a reranker, scored by one or two logits, or as an embedder.

Many rerankers are published as a bare language model, and their files do not say what it is for. Known ones are
recognised by name; for others the operator sets `score_tokens` or `pooling`. A language model without either is
refused. Called by `checkpoint`, and by `tokenizer_svc.text.rerank_prompts` for the prompts of the same models.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heddle.checkpoint.causality import is_causal
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import LogitScore, Pooling, PoolingSetting, SentenceModules
from heddle.checkpoint.tokenizer_files import token_ids

LANGUAGE_MODEL = "ForCausalLM"

# Takes the score tokens from the checkpoint, or from the table below by the name of the model.
AUTO = "auto"

# The id of a token, its spelling, or, if the spelling is a number, the spelling in quotes.
SCORE_TOKEN = re.compile(r'\s*(?:"(?P<quoted>[^"]+)"|(?P<id>\d+)|(?P<plain>[^\s",]+))\s*')

# How the config of NVIDIA's bidirectional decoders names the pooling.
POOLING_OF_NEMO = {"avg": Pooling.MEAN, "cls": Pooling.CLS, "last": Pooling.LAST_TOKEN}

# Marks an embedder by its name, for copies without modules.json.
EMBEDDER_NAME = re.compile(r"embed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnownReranker:
    """A family of rerankers with the same prompt and the same score tokens."""

    name: str  # of the prompt in tokenizer_svc.text.rerank_prompts
    pattern: re.Pattern[str]  # searched for in the names of a checkpoint
    score_tokens: str  # as an operator would set them


# By config.json's model_type.
KNOWN_RERANKERS = {
    # Model card: the softmax over both logits, which is the sigmoid of their difference.
    "qwen3": KnownReranker("qwen3-reranker", re.compile(r"qwen.?3.rerank", re.IGNORECASE), "yes,no"),
    # mxbai_rerank_v2.py of the package mxbai-rerank: the difference of both logits.
    "qwen2": KnownReranker("mxbai-rerank-v2", re.compile(r"mxbai.rerank", re.IGNORECASE), '"1","0"'),
    # Model card: the logit of this token.
    "gemma": KnownReranker("bge-reranker-gemma", re.compile(r"bge.reranker", re.IGNORECASE), "Yes"),
}


def with_score(
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
    tokenizer's files; `pooling` is the operator's setting, which `modules` already include. Raises CheckpointError for
    a language model whose use is not known, and for settings that contradict the model or each other."""
    if score_tokens != AUTO:
        if pooling != "auto":
            raise CheckpointError("score_tokens makes a reranker and pooling an embedder: set only one of them")
        if not architecture.endswith(LANGUAGE_MODEL):
            raise CheckpointError(
                f"score_tokens is set, but {folder} holds a {architecture}, which is not a causal language model"
            )
        return replace_with_score(modules, logit_score_of(score_tokens, folder))
    if modules.says_use or not architecture.endswith(LANGUAGE_MODEL) or not is_causal(config):
        return modules
    known = known_reranker(config, names)
    if known is not None:
        return replace_with_score(modules, logit_score_of(known.score_tokens, folder))
    if EMBEDDER_NAME.search(names):
        return modules
    raise CheckpointError(
        f"{folder}: a {architecture} without modules.json can be an embedder or a reranker: "
        f"set --pooling (such as last_token) for an embedder, or --score-tokens (such as yes,no) for a reranker"
    )


def replace_with_score(modules: SentenceModules, score: LogitScore) -> SentenceModules:
    return replace(modules, pooling=(), token_modules=None, vector_modules=(), splade=None, logit_score=score)


def names_of(config: Mapping[str, Any], name: str, folder: Path) -> str:
    """All names of a checkpoint: the operator's, the config's, and that of its folder or its repository on the hub."""
    folder = folder.absolute()  # which has a name, unlike "."
    is_snapshot = folder.parent.name == "snapshots"
    return f"{name} {config.get('_name_or_path') or ''} {folder.parent.parent.name if is_snapshot else folder.name}"


def known_reranker(config: Mapping[str, Any], names: str) -> KnownReranker | None:
    known = KNOWN_RERANKERS.get(str(config.get("model_type")))
    return known if known is not None and known.pattern.search(names) else None


def is_scored_as(known: KnownReranker, score: LogitScore, folder: Path) -> bool:
    """Whether a score is made of the same tokens. `folder` has the tokenizer's files."""
    try:
        return logit_score_of(known.score_tokens, folder) == score
    except CheckpointError:  # it has no such tokens
        return False


def logit_score_of(score_tokens: str, folder: Path) -> LogitScore:
    """Raises CheckpointError for a spelling that the tokenizer in `folder` does not have."""
    stated = parse_score_tokens(score_tokens)
    spellings = [token for token in stated if isinstance(token, str)]
    ids = token_ids(folder, spellings) if spellings else {}
    true_id, *false_id = (token if isinstance(token, int) else ids[token] for token in stated)
    return LogitScore(true_id, false_id[0] if false_id else None)


def parse_score_tokens(setting: str) -> list[int | str]:
    """Ids and spellings, first of the token that means yes. Raises ValueError unless there are one or two tokens."""
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


def default_pooling(config: Mapping[str, Any], architecture: str) -> Pooling:
    """The pooling of a checkpoint without modules.json: the config's, else the one that sentence-transformers takes."""
    if config.get("model_type") == "llama_bidirec" and str(config.get("pooling")) in POOLING_OF_NEMO:
        return POOLING_OF_NEMO[config["pooling"]]
    return Pooling.LAST_TOKEN if architecture.endswith(LANGUAGE_MODEL) and is_causal(config) else Pooling.MEAN
