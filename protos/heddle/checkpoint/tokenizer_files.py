"""The files of a checkpoint that decide which ids a text becomes, their fingerprint, and the ids of single tokens.

`checkpoint` takes the fingerprint, so that tokenizer and engine pods can check that they have the same tokenizer;
`loading` reads the files. `language_models` and `m3` look up ids, in the JSON files alone: engines have
no tokenizer library.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heddle.checkpoint.json_files import CheckpointError, read_json, read_json_if_there
from heddle.checkpoint.sentence_modules import SentenceModules

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

# The tokenizer is built from these if there is no tokenizer.json.
WORD_PIECE_FILE = "vocab.txt"
BYTE_LEVEL_FILES = ("vocab.json", "merges.txt")
# The names that transformers gives them, the usual one first.
SENTENCE_PIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
VOCABULARY_FILES = (WORD_PIECE_FILE, *BYTE_LEVEL_FILES, *SENTENCE_PIECE_FILES)

# Class name, in transformers 5, of a tokenizer that consists of its tokenizer.json alone.
PLAIN_TOKENIZER = "TokenizersBackend"


def files_of(folder: Path) -> list[Path]:
    """The files that exist and decide ids, in a fixed order."""
    names = TOKENIZER_FILES if (folder / TOKENIZER_FILE).is_file() else (*TOKENIZER_FILES, *VOCABULARY_FILES)
    return [folder / name for name in names if (folder / name).is_file()]


def is_of_transformers_5(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether transformers 5 or later wrote config.json and tokenizer_config.json; files that do not say it count as
    version 4's. The versions differ in the settings that they apply."""
    major = str(config.get("transformers_version") or "").partition(".")[0]
    return settings.get("tokenizer_class") == PLAIN_TOKENIZER or (major.isdecimal() and int(major) >= 5)


def fingerprint_of(
    folder: Path, config: Mapping[str, Any], sequence_tokens_max: int, modules: SentenceModules, labels: int
) -> str:
    """SHA-256, in hex, over the files that exist (name, size, bytes) and, as sorted JSON, what else decides ids:
    the kind of tokenizer (config.json); longest sequence, lower-casing, prompts, default prompt and whether pooling
    includes the prompt (sentence-transformers' files). It also covers what two services may take from different
    places: the score tokens, from their settings, and the number of labels, from weights that only one of them has.
    """
    digest = hashlib.sha256()
    for path in files_of(folder):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    settings = {
        "tokenizer_class": config.get("tokenizer_class"),
        "model_type": config.get("model_type"),
        "is_of_transformers_5": is_of_transformers_5(config, {}),
        "sequence_tokens_max": sequence_tokens_max,
        "do_lower_case": modules.do_lower_case,
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt_name,
        "include_prompt": modules.include_prompt,
    }
    if modules.logit_score is not None:
        settings["logit_score"] = [modules.logit_score.true_id, modules.logit_score.false_id]
    if labels:
        settings["labels"] = labels
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


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
