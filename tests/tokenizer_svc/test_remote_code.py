"""Tokenizers that come as code of their own: what that code adds is added without executing it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError
from tests.checkpoints import SMALL_BERT, write_json
from tests.small_tokenizers import byte_level
from tokenizer_svc.sequence import Options, TokenSequence
from tokenizer_svc.tokenization import Tokenizer

END = "<|endoftext|>"
OWN_CODE = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]}}
GTE_QWEN2 = {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}


def library(*, has_end: bool = True) -> Library:
    tokenizer = byte_level()
    tokenizer.post_processor = None  # as Qwen's has none
    if has_end:
        tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def checkpoint_of(
    folder: Path, tokenizer: Library, *, settings: dict[str, Any], config: dict[str, Any] | None = None
) -> Checkpoint:
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", settings)
    stated = {**SMALL_BERT, "vocab_size": 600, "model_type": "qwen2", "architectures": ["Qwen2Model"]}
    write_json(folder / "config.json", {**stated, **(config or {})})
    return Checkpoint.read(folder)


def ids_of(tokenizer: Tokenizer, text: str | tuple[str, str]) -> list[int]:
    [result] = tokenizer.encode([(text, Options())])
    assert isinstance(result, TokenSequence)
    return memoryview(result.token_ids).cast("I").tolist()


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({**OWN_CODE, "add_eos_token": True, "eos_token": END}, {}),
        ({**OWN_CODE, "add_eos_token": True, "eos_token": {"content": END, "special": True}}, {}),
        ({}, GTE_QWEN2),
    ],
    ids=["the tokenizer says so", "as an object", "the model is GTE-Qwen2"],
)
def test_every_text_ends_as_the_code_would_end_it(
    tmp_path: Path, settings: dict[str, Any], config: dict[str, Any]
) -> None:
    plain = library()
    end = plain.token_to_id(END)
    tokenizer = Tokenizer.load(checkpoint_of(tmp_path, library(), settings=settings, config=config))
    assert ids_of(tokenizer, "hello world") == [*plain.encode("hello world").ids, end]
    both = [*plain.encode("hello").ids, end, *plain.encode("world").ids, end]
    assert ids_of(tokenizer, ("hello", "world")) == both
    long = ids_of(tokenizer, "hello world " * 500)
    assert (len(long), long[-1]) == (tokenizer.sequence_tokens_max, end)


@pytest.mark.parametrize(
    "settings",
    [
        {"add_eos_token": True, "eos_token": END},
        {**OWN_CODE, "add_eos_token": False, "eos_token": END},
        {**OWN_CODE, "eos_token": END},
    ],
    ids=["no code", "says no", "says nothing"],
)
def test_tokenizer_json_stands_where_there_is_no_such_code(tmp_path: Path, settings: dict[str, Any]) -> None:
    """As in transformers 5, which takes a tokenizer.json as it is."""
    tokenizer = Tokenizer.load(checkpoint_of(tmp_path, library(), settings=settings))
    assert ids_of(tokenizer, "hello world") == library().encode("hello world").ids


def test_text_that_is_ended_already_is_not_ended_twice(tmp_path: Path) -> None:
    settings = {**OWN_CODE, "add_eos_token": True, "eos_token": END}
    ended = Tokenizer.load(checkpoint_of(tmp_path, library(), settings=settings))
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    template = {"type_id": 0}
    saved["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", **template}}, {"SpecialToken": {"id": END, **template}}],
        "pair": [{"Sequence": {"id": "A", **template}}, {"Sequence": {"id": "B", **template}}],
        "special_tokens": {END: {"id": END, "ids": [library().token_to_id(END)], "tokens": [END]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    again = Tokenizer.load(Checkpoint.read(tmp_path))
    assert ids_of(again, "hello world") == ids_of(ended, "hello world")


def test_end_that_the_vocabulary_lacks_is_named(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, library(has_end=False), settings={}, config=GTE_QWEN2)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has no token '<\|endoftext\|>'"):
        Tokenizer.load(checkpoint)
