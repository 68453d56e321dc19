"""A pair has type ids if transformers gives it type ids."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from heddle.checkpoint import Checkpoint
from tests.checkpoints import SMALL_BERT, write_json
from tests.small_tokenizers import word_piece
from tests.tokenizer_svc.encoding import encode_one
from tokenizer_svc.text.sequences import TokenSequence
from tokenizer_svc.text.tokenizer import Tokenizer

PAIR = ("hello", "world")


def saved(folder: Path, **settings: Any) -> None:
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer_class(tokenizer_object=word_piece(), unk_token="[UNK]", **settings).save_pretrained(folder)
    write_json(folder / "config.json", {**SMALL_BERT, "vocab_size": 600, "model_type": "bert"})


def type_ids_of(folder: Path) -> list[int]:
    sequence = encode_one(Tokenizer.load(Checkpoint.read(folder)), PAIR)
    assert isinstance(sequence, TokenSequence)
    return list(sequence.type_ids or bytes(sequence.tokens))


@pytest.mark.parametrize(
    "settings",
    [{}, {"model_input_names": ["input_ids", "token_type_ids"]}, {"model_input_names": ["input_ids"]}],
    ids=["unstated", "with type ids", "without type ids"],
)
def test_pair_has_the_types_that_transformers_gives_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    saved(tmp_path, **settings)
    expected = AutoTokenizer.from_pretrained(tmp_path)(*PAIR)
    assert type_ids_of(tmp_path) == expected.get("token_type_ids", [0] * len(expected["input_ids"]))


def test_pair_has_type_ids_with_the_class_of_bert(tmp_path: Path) -> None:
    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PAIR])}
    BertTokenizer(vocab=vocabulary).save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", {**SMALL_BERT, "model_type": "bert"})
    assert type_ids_of(tmp_path) == AutoTokenizer.from_pretrained(tmp_path)(*PAIR)["token_type_ids"] == [0, 0, 0, 1, 1]
