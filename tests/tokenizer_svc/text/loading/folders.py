"""Folders with a tokenizer.json and other settings, and the ids of texts by our tokenizer and by AutoTokenizer."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import normalizers
from transformers import AutoTokenizer

from heddle.checkpoint import Checkpoint
from tests.checkpoints import SMALL_BERT, write_json
from tests.small_tokenizers import small_tokenizer
from tests.texts import NEARLY_NOTHING, SENTENCES
from tests.tokenizer_svc.encoding import read_ids
from tokenizer_svc.text.inputs import Options
from tokenizer_svc.text.sequences import TokenSequence
from tokenizer_svc.text.tokenizer import Tokenizer

TEXTS = [
    *SENTENCES,
    *NEARLY_NOTHING,
    "The FOX, the Café and Élan",
    "机器学习 model",
    "a [MASK] b [CLS] x",
    "see [E1]  here [e2] [E2]z <m>.",
    "  two  spaces ",
    "<s>x</s> <mask>y <pad>",
    "[UNK]",
    "tab\tnl\n  x",
    "a <mask>, b<mask>",
    "``quoted'' text costs 3,5 and 3, now",
    "a\u00a0b \u3000 c",
    "word " * 40,
]

# The form in which tokenizer_config.json lists tokens.
PLAIN_TOKEN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


def bert(**normalizer: Any) -> Library:
    tokenizer = small_tokenizer("word_piece")
    tokenizer.normalizer = normalizers.BertNormalizer(**{"lowercase": True, **normalizer})
    return tokenizer


def without_added_tokens(tokenizer: Library) -> Library:
    state = json.loads(tokenizer.to_str())
    return Library.from_str(json.dumps({**state, "added_tokens": []}))


def write_folder(
    folder: Path, tokenizer: Library, settings: dict[str, Any] | None, config: dict[str, Any] | None = None
) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings is not None:
        write_json(folder / "tokenizer_config.json", settings)
    stated = {"vocab_size": 600, "max_position_embeddings": 2048, "model_type": "bert", "architectures": ["BertModel"]}
    write_json(folder / "config.json", {**SMALL_BERT, **stated, **(config or {})})
    return folder


def ids_of(folder: Path, texts: list[str]) -> list[list[int]]:
    """Ids by our tokenizer; [] for a text without tokens."""
    tokenizer = Tokenizer.load(Checkpoint.read(folder))
    [results] = tokenizer.encode([(texts, Options())])
    return [read_ids(result) if isinstance(result, TokenSequence) else [] for result in results]


def expected_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    """Ids by AutoTokenizer of the installed transformers, which is version 5."""
    reference = AutoTokenizer.from_pretrained(folder)
    return [reference(text, verbose=False)["input_ids"] for text in texts]
