"""The tokenizer files of a checkpoint, their fingerprint, and the ids of single tokens.

Tokenizer and engine pods compare fingerprints to check that they have the same tokenizer. `tokenizer_svc.text.loading`
builds the tokenizer. Ids are looked up in the JSON files alone, because engines have no tokenizer library.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heddle.checkpoint.json_files import CheckpointError, read_json, read_json_if_exists
from heddle.checkpoint.sentence_modules import SentenceModules

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

# The tokenizer is built from these files if there is no tokenizer.json.
WORD_PIECE_FILE = "vocab.txt"
BYTE_LEVEL_FILES = ("vocab.json", "merges.txt")
# Names that transformers uses, the most common one first.
SENTENCE_PIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
VOCABULARY_FILES = (WORD_PIECE_FILE, *BYTE_LEVEL_FILES, *SENTENCE_PIECE_FILES)

# The class in transformers 5 of a tokenizer that is defined by tokenizer.json alone.
PLAIN_TOKENIZER = "TokenizersBackend"


def list_tokenizer_files(folder: Path) -> list[Path]:
    """Returns the files that exist and affect ids, in a fixed order."""
    names = TOKENIZER_FILES if (folder / TOKENIZER_FILE).is_file() else (*TOKENIZER_FILES, *VOCABULARY_FILES)
    return [folder / name for name in names if (folder / name).is_file()]


def is_from_transformers_5(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether transformers 5 or later wrote config.json and tokenizer_config.json. The versions apply different
    settings. Files that do not state the version count as version 4."""
    major = str(config.get("transformers_version") or "").partition(".")[0]
    return settings.get("tokenizer_class") == PLAIN_TOKENIZER or (major.isdecimal() and int(major) >= 5)


def compute_fingerprint(
    folder: Path, config: Mapping[str, Any], sequence_tokens_max: int, modules: SentenceModules, labels: int
) -> str:
    """Returns the SHA-256, in hex, of the files that exist (name, size, bytes) and of everything else that affects ids,
    as sorted JSON: the kind of tokenizer (config.json); longest sequence, lower-casing, prompts, default prompt and
    whether pooling includes the prompt (sentence-transformers' files). Score tokens and the number of labels are
    included too, since two services may read them from different places: their settings, or weights that only one of
    them has."""
    digest = hashlib.sha256()
    for path in list_tokenizer_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    settings = {
        "tokenizer_class": config.get("tokenizer_class"),
        "model_type": config.get("model_type"),
        "is_of_transformers_5": is_from_transformers_5(config, {}),
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


def look_up_token_ids(folder: Path, spellings: Iterable[str]) -> dict[str, int]:
    """Returns ids by spelling. Raises CheckpointError if the vocabulary has no token with exactly that spelling."""
    try:
        vocabulary = read_vocabulary(folder)
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: the tokenizer's vocabulary cannot be read: {error!r}") from None
    ids: dict[str, int] = {}
    for spelling in spellings:
        if not isinstance(vocabulary.get(spelling), int):
            raise CheckpointError(f"{folder}: the tokenizer's vocabulary has no token {spelling!r}")
        ids[spelling] = vocabulary[spelling]
    return ids


def read_vocabulary(folder: Path) -> Mapping[str, int]:
    """Reads tokenizer.json, or vocab.json in older checkpoints. Raises CheckpointError if there is neither."""
    path = folder / "tokenizer.json"
    if path.is_file():
        content = read_json(path)
        return {**get_pieces(content.get("model") or {}), **get_added_tokens(content.get("added_tokens") or [])}
    if (folder / "vocab.json").is_file():
        settings = read_json_if_exists(folder / "tokenizer_config.json")
        added = settings.get("added_tokens_decoder") or {}
        return {
            **read_json(folder / "vocab.json"),
            **get_added_tokens({"id": int(index), **token} for index, token in added.items()),
        }
    raise CheckpointError(f"{folder} has neither a tokenizer.json nor a vocab.json to look up tokens in")


def get_pieces(model: Mapping[str, Any]) -> Mapping[str, int]:
    """Unigram models have a list of pieces with scores. All others have a table of ids."""
    vocabulary = model.get("vocab") or {}
    if isinstance(vocabulary, dict):
        return vocabulary
    return {piece: index for index, (piece, *_) in enumerate(vocabulary)}


def get_added_tokens(tokens: Iterable[Mapping[str, Any]]) -> Mapping[str, int]:
    return {token["content"]: token["id"] for token in tokens}
