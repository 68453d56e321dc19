"""Looks up the ids of tokens in the JSON files of a checkpoint, without a tokenizer library: engines have none.

Called by `heddle.language_models` and `heddle.m3`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heddle.checkpoint_files import CheckpointError, read_json, read_json_if_there


def token_ids(folder: Path, spellings: Iterable[str]) -> dict[str, int]:
    """Ids by spelling. Raises CheckpointError if the vocabulary has no token with exactly this spelling."""
    known = vocabulary_of(folder)
    ids = {spelling: known.get(spelling) for spelling in spellings}
    for spelling, token_id in ids.items():
        if token_id is None:
            raise CheckpointError(f"{folder}: the tokenizer's vocabulary has no token {spelling!r}")
    return {spelling: token_id for spelling, token_id in ids.items() if token_id is not None}


def vocabulary_of(folder: Path) -> Mapping[str, int]:
    """Reads tokenizer.json, or vocab.json in older checkpoints. Raises CheckpointError if there is neither."""
    path = folder / "tokenizer.json"
    if path.is_file():
        content = read_json(path)
        return {**pieces_of(content.get("model") or {}), **added_tokens_of(content.get("added_tokens") or [])}
    if (folder / "vocab.json").is_file():
        settings = read_json_if_there(folder / "tokenizer_config.json")
        added = settings.get("added_tokens_decoder") or {}
        return {
            **read_json(folder / "vocab.json"),
            **added_tokens_of({"id": int(index), **token} for index, token in added.items()),
        }
    raise CheckpointError(f"{folder} has neither a tokenizer.json nor a vocab.json to look up tokens in")


def pieces_of(model: Mapping[str, Any]) -> Mapping[str, int]:
    """Unigram models list their pieces with scores; all other models have a table of ids."""
    vocabulary = model.get("vocab") or {}
    if isinstance(vocabulary, dict):
        return vocabulary
    return {piece: index for index, (piece, *_) in enumerate(vocabulary)}


def added_tokens_of(tokens: Iterable[Mapping[str, Any]]) -> Mapping[str, int]:
    return {token["content"]: token["id"] for token in tokens}
