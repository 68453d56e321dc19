"""The tokens around every text, if a checkpoint's settings or code differ from its tokenizer.json."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Library
from transformers import AutoTokenizer

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import PoolingSetting
from tests.checkpoints import SMALL_BERT, write_json
from tests.small_tokenizers import byte_level, small_tokenizer
from tests.tokenizer_svc.encoding import encode_one, read_ids
from tokenizer_svc.text.inputs import Options
from tokenizer_svc.text.loading.post_processor import EndToken
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

END = "<|endoftext|>"
OWN_CODE = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]}}
GTE_QWEN2 = {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}
MISTRAL = {"model_type": "mistral", "architectures": ["MistralModel"]}
LLAMA_TOKENS = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BOS, EOS = 2, 1  # ids in `mistral`


def library(*, has_end: bool = True) -> Library:
    tokenizer = byte_level()
    tokenizer.post_processor = None  # like Qwen's
    if has_end:
        tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def mistral(*, ends: bool = False, pieces: bool = False) -> Library:
    """A tokenizer like e5-mistral's, with <s> before each text. `pieces`: the template is part of a sequence of
    post-processors, as in Llama 3."""
    written = small_tokenizer("sentence_piece_bpe").to_str()
    tokenizer = Library.from_str(written.replace('"<bos>"', '"<s>"').replace('"<eos>"', '"</s>"'))
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> <s>:1 $B:1 </s>:1", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    if pieces:
        template = tokenizer.post_processor
        assert template is not None
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def checkpoint_of(
    folder: Path,
    tokenizer: Library,
    *,
    settings: dict[str, Any],
    config: dict[str, Any] | None = None,
    pooling: PoolingSetting = "auto",
) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", settings)
    stated = {**SMALL_BERT, "vocab_size": 600, "model_type": "qwen2", "architectures": ["Qwen2Model"]}
    write_json(folder / "config.json", {**stated, **(config or {})})
    return Checkpoint.read(folder, pooling=pooling)


def encode(tokenizer: Tokenizer, text: str | tuple[str, str], side: Truncation = Truncation.RIGHT) -> list[int]:
    return read_ids(encode_one(tokenizer, text, Options(side)))


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
    assert encode(tokenizer, "hello world") == [*plain.encode("hello world").ids, end]
    both = [*plain.encode("hello").ids, end, *plain.encode("world").ids, end]
    assert encode(tokenizer, ("hello", "world")) == both
    long = encode(tokenizer, "hello world " * 500)
    assert (len(long), long[-1]) == (tokenizer.sequence_tokens_max, end)


@pytest.mark.parametrize("version", ["4.34.0", "5.1.0", None])
@pytest.mark.parametrize("class_name", ["LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("pieces", [False, True])
def test_last_token_pooling_gets_the_end_token_that_the_settings_state(
    tmp_path: Path, version: str | None, class_name: str, pieces: bool
) -> None:
    """e5-mistral and models like it were trained with the end token, whichever version wrote the config."""
    settings = {**LLAMA_TOKENS, "tokenizer_class": class_name, "add_eos_token": True}
    config = {**MISTRAL, "transformers_version": version}
    checkpoint = checkpoint_of(tmp_path, mistral(pieces=pieces), settings=settings, config=config, pooling="last_token")
    tokenizer = Tokenizer.load(checkpoint)
    hello, world = (mistral().encode(text, add_special_tokens=False).ids for text in ("hello", "world"))
    assert encode(tokenizer, "hello") == [BOS, *hello, EOS]
    assert encode(tokenizer, ("hello", "world")) == [BOS, *hello, EOS, BOS, *world, EOS]
    for side in (Truncation.LEFT, Truncation.RIGHT):
        long = encode(tokenizer, "hello world " * 500, side)
        assert (len(long), long[0], long[-1]) == (tokenizer.sequence_tokens_max, BOS, EOS)


def test_end_token_of_last_token_pooling_is_that_of_transformers_4(tmp_path: Path) -> None:
    """AutoTokenizer of transformers 4.57.1 gave these ids for this folder; version 5 leaves out the last."""
    settings = {**LLAMA_TOKENS, "add_eos_token": True}
    checkpoint = checkpoint_of(tmp_path, mistral(), settings=settings, config=MISTRAL, pooling="last_token")
    ours = encode(Tokenizer.load(checkpoint), "hello")
    version_5 = AutoTokenizer.from_pretrained(tmp_path)("hello")["input_ids"]
    assert ours == [*version_5, EOS]


@pytest.mark.parametrize(
    ("add", "version", "ends", "expected"),
    [
        # AutoTokenizer of transformers 4.57.1 puts these around a text: it uses the settings alone, ...
        ({}, "4.34.0", False, "<s> a"),
        ({}, "4.34.0", True, "<s> a"),
        ({"add_eos_token": True}, "4.34.0", False, "<s> a </s>"),
        ({"add_eos_token": False}, None, True, "<s> a"),
        ({"add_bos_token": False}, "4.34.0", False, "a"),
        ({"add_bos_token": None}, "4.34.0", False, "a"),
        ({"add_bos_token": False, "add_eos_token": True}, "4.34.0", True, "a </s>"),
        # ... and that of version 5 uses tokenizer.json alone.
        ({"add_eos_token": True}, "5.1.0", False, "<s> a"),
        ({"add_bos_token": False}, "5.1.0", True, "<s> a </s>"),
        ({}, "5.1.0", True, "<s> a </s>"),
    ],
)
@pytest.mark.parametrize("class_name", ["LlamaTokenizer", "GemmaTokenizerFast"])
def test_bos_and_eos_settings_apply_as_in_the_version_that_wrote_the_checkpoint(
    tmp_path: Path, *, class_name: str, add: dict[str, bool | None], version: str | None, ends: bool, expected: str
) -> None:
    settings = {**LLAMA_TOKENS, "tokenizer_class": class_name, **add}
    config = {**MISTRAL, "transformers_version": version}
    tokenizer = Tokenizer.load(checkpoint_of(tmp_path, mistral(ends=ends), settings=settings, config=config))
    spelled = [token.text for token in tokenizer.tokenize("a")]
    assert " ".join(spelled) == expected
    if version == "5.1.0":
        assert encode(tokenizer, ("ab", "c")) == AutoTokenizer.from_pretrained(tmp_path)("ab", "c")["input_ids"]


def test_special_tokens_that_differ_from_tokenizer_json_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, ends in (("same", False), ("other", True)):
        Tokenizer.load(checkpoint_of(tmp_path / name, mistral(ends=ends), settings=LLAMA_TOKENS, config=MISTRAL))
    [line] = [record.getMessage() for record in caplog.records if "transformers 4" in record.getMessage()]
    assert str(tmp_path / "other") in line


@pytest.mark.parametrize(
    ("end_token", "add_eos_token", "is_ended"),
    [
        ("auto", False, False),
        ("auto", True, True),
        ("append", False, True),
        ("append", True, True),
        ("file", True, False),
    ],
)
def test_setting_overrides_the_checkpoint(
    tmp_path: Path, end_token: EndToken, add_eos_token: bool, is_ended: bool
) -> None:
    settings = {**LLAMA_TOKENS, "add_eos_token": add_eos_token}
    checkpoint = checkpoint_of(tmp_path, mistral(), settings=settings, config=MISTRAL, pooling="last_token")
    ids = encode(Tokenizer.load(checkpoint, end_token), "hello")
    assert ids == mistral().encode("hello").ids + [EOS] * is_ended


@pytest.mark.parametrize(
    "settings",
    [
        {"add_eos_token": True, "eos_token": END},
        {**OWN_CODE, "add_eos_token": False, "eos_token": END},
        {**OWN_CODE, "eos_token": END},
    ],
    ids=["neither code nor last-token pooling", "says no", "says nothing"],
)
def test_tokenizer_json_is_kept_if_nothing_asks_for_an_end_token(tmp_path: Path, settings: dict[str, Any]) -> None:
    """In both versions of transformers, add_eos_token has no effect on Qwen's class."""
    tokenizer = Tokenizer.load(checkpoint_of(tmp_path, library(), settings=settings))
    assert encode(tokenizer, "hello world") == library().encode("hello world").ids


def test_a_second_end_token_is_not_added(tmp_path: Path) -> None:
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
    assert encode(again, "hello world") == encode(ended, "hello world")


def test_an_end_token_that_the_vocabulary_lacks_is_named(tmp_path: Path) -> None:
    plain = library(has_end=False)
    config = {**GTE_QWEN2, "vocab_size": plain.get_vocab_size()}  # no embedding is left for an added token
    checkpoint = checkpoint_of(tmp_path, plain, settings={}, config=config)
    with pytest.raises(CheckpointError, match=r"the vocabulary has no token '<\|endoftext\|>'"):
        Tokenizer.load(checkpoint)
