"""Settings that differ from tokenizer.json: ids are those of AutoTokenizer.

transformers 4.57.1 and 5.24 gave the same ids for each folder of the parity tests. Where they differ, the literals are
the ids of 4.57.1, which cannot be installed beside the version that the other tests need.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import normalizers, pre_tokenizers

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import Pooling
from tests.checkpoints import write_json
from tests.small_tokenizers import small_tokenizer
from tests.tokenizer_svc.text.loading.folders import (
    PLAIN_TOKEN,
    TEXTS,
    bert,
    expected_ids,
    ids_of,
    without_added_tokens,
    write_folder,
)
from tokenizer_svc.text.tokenizer import Tokenizer

BERT = {"tokenizer_class": "BertTokenizer"}
NEW = bert().get_vocab_size()  # the id that the next token gets

# Settings, the normalizer of tokenizer.json, and whether the settings change the ids.
NORMALIZERS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"do_lower_case": False}, {"lowercase": True}, True),
    ({"do_lower_case": True}, {"lowercase": False}, True),
    ({"do_lower_case": True}, {"lowercase": True}, False),
    ({}, {"lowercase": False}, True),  # the class lower-cases by default
    ({"strip_accents": False}, {}, True),
    ({"strip_accents": None}, {"strip_accents": False}, True),
    ({}, {"strip_accents": False}, True),
    ({"do_lower_case": False, "strip_accents": True}, {"lowercase": False}, True),
    ({"tokenize_chinese_chars": False}, {}, True),
    ({}, {"handle_chinese_chars": False}, True),
    ({"tokenize_chinese_chars": True}, {}, False),
]

TOKENS: list[dict[str, Any]] = [
    {"additional_special_tokens": ["[E1]", "[E2]"]},
    {"additional_special_tokens": [{"__type": "AddedToken", "content": "[E1]", **PLAIN_TOKEN, "lstrip": True}]},
    {"extra_special_tokens": {"first_token": "[E1]"}},
    {"added_tokens_decoder": {str(NEW): {"content": "[E1]", **PLAIN_TOKEN}}},
    {
        "added_tokens_decoder": {
            str(NEW + 1): {"content": "[e2]", **PLAIN_TOKEN, "normalized": True, "special": False},
            str(NEW): {"content": "[E1]", **PLAIN_TOKEN},
        }
    },
    {"added_tokens_decoder": {str(NEW + 7): {"content": "[E1]", **PLAIN_TOKEN}}},  # the id is ignored
    {"added_tokens_decoder": {str(NEW): {"content": "fox", **PLAIN_TOKEN, "single_word": True, "special": False}}},
    {"mask_token": "<m>"},
    {"mask_token": {"__type": "AddedToken", "content": "[E1]", **PLAIN_TOKEN, "lstrip": True}},
]


def check_parity(folder: Path, *, differs: bool) -> None:
    """`differs`: whether the settings change the ids that tokenizer.json alone gives."""
    expected = expected_ids(folder, TEXTS)
    assert ids_of(folder, TEXTS) == expected
    alone = Library.from_file(str(folder / "tokenizer.json"))
    assert ([alone.encode(text).ids for text in TEXTS] != expected) == differs


@pytest.mark.parametrize("version", ["4.30.2", "5.1.0"])
@pytest.mark.parametrize(("settings", "file", "differs"), NORMALIZERS)
def test_case_accents_and_chinese_characters_are_as_the_settings_say(
    tmp_path: Path, settings: dict[str, Any], file: dict[str, Any], differs: bool, version: str
) -> None:
    write_folder(tmp_path, bert(**file), {**BERT, **settings}, {"transformers_version": version})
    check_parity(tmp_path, differs=differs)


@pytest.mark.parametrize(
    ("class_name", "differs"),
    [
        ("BertTokenizerFast", True),
        ("DistilBertTokenizer", True),
        ("ElectraTokenizerFast", True),
        ("MobileBertTokenizer", True),
        ("PreTrainedTokenizerFast", False),
        ("TokenizersBackend", False),
    ],
)
def test_class_decides_whether_there_is_a_setting(tmp_path: Path, class_name: str, differs: bool) -> None:
    write_folder(tmp_path, bert(), {"tokenizer_class": class_name, "do_lower_case": False})
    check_parity(tmp_path, differs=differs)


@pytest.mark.parametrize(
    ("settings", "config", "differs"),
    [
        (None, {}, True),
        ({}, {"model_type": "distilbert"}, True),
        ({}, {"model_type": "electra"}, True),
        ({}, {"tokenizer_class": "BertTokenizer", "model_type": "unheard_of"}, True),
        ({}, {"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({}, {"model_type": "modernbert"}, False),
    ],
)
def test_class_is_that_of_the_config_if_the_tokenizer_names_none(
    tmp_path: Path, settings: dict[str, Any] | None, config: dict[str, Any], differs: bool
) -> None:
    write_folder(tmp_path, bert(lowercase=False), settings, config)
    check_parity(tmp_path, differs=differs)


@pytest.mark.parametrize("class_name", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_tokens_that_tokenizer_json_lacks_are_added(tmp_path: Path, tokens: dict[str, Any], class_name: str) -> None:
    write_folder(tmp_path, bert(), {"tokenizer_class": class_name, **tokens})
    check_parity(tmp_path, differs=True)


def test_list_of_extra_special_tokens_is_added_as_transformers_5_writes_it(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[E1]", "[E2]"]}
    write_folder(tmp_path, bert(), settings, {"transformers_version": "5.1.0"})
    check_parity(tmp_path, differs=True)


def test_folder_of_nvidia_s_bidirectional_llama_is_read_as_it_is(tmp_path: Path) -> None:
    """A tokenizer of transformers 5 beside a config of version 4, whose model type only its own code knows."""
    settings = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[E1]", "[E2]"]}
    config = {
        "architectures": ["LlamaBidirectionalModel"],
        "auto_map": {"AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig"},
        "model_type": "llama_bidirec",
        "pooling": "avg",
        "transformers_version": "4.44.2",
    }
    write_folder(tmp_path, bert(), settings, config)
    checkpoint = Checkpoint.read(tmp_path)
    assert (checkpoint.kind, checkpoint.pooling) == (ModelKind.EMBEDDER, (Pooling.MEAN,))
    check_parity(tmp_path, differs=True)


@pytest.mark.parametrize("extra", [["[E2]"], {"second_token": "[E2]"}], ids=["list", "by name"])
def test_extra_special_tokens_beside_additional_ones_are_read_as_transformers_5_does(
    tmp_path: Path, extra: list[str] | dict[str, str]
) -> None:
    tokens = {"additional_special_tokens": ["[E1]"], "extra_special_tokens": extra}
    write_folder(tmp_path, bert(), {**BERT, **tokens}, {"transformers_version": "5.1.0"})
    check_parity(tmp_path, differs=True)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("special_tokens_map.json", {"additional_special_tokens": ["[E1]"]}),
        ("special_tokens_map.json", {"mask_token": {"content": "<m>", **PLAIN_TOKEN}}),
        ("added_tokens.json", {"[E2]": NEW + 1, "[E1]": NEW}),
    ],
)
def test_older_files_add_tokens_if_the_settings_list_none(tmp_path: Path, file: str, content: Any) -> None:
    write_folder(tmp_path, bert(), BERT)
    write_json(tmp_path / file, content)
    check_parity(tmp_path, differs=True)
    write_folder(tmp_path, bert(), {**BERT, "added_tokens_decoder": {"2": {"content": "[CLS]", **PLAIN_TOKEN}}})
    check_parity(tmp_path, differs=False)


@pytest.mark.parametrize(
    "settings", [BERT, {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]", "cls_token": "[CLS]"}]
)
def test_special_tokens_are_not_split_even_if_tokenizer_json_would(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_folder(tmp_path, without_added_tokens(bert()), settings)
    check_parity(tmp_path, differs=True)


@pytest.mark.parametrize("class_name", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_special_tokens_in_a_text_are_split_if_the_settings_say_so(tmp_path: Path, class_name: str) -> None:
    write_folder(tmp_path, bert(), {"tokenizer_class": class_name, "split_special_tokens": True})
    check_parity(tmp_path, differs=True)


@pytest.mark.parametrize("class_name", ["RobertaTokenizer", "GPT2Tokenizer"])
@pytest.mark.parametrize("file", [True, False])
@pytest.mark.parametrize("setting", [True, False, None])
def test_space_before_a_text_is_as_the_settings_say(
    tmp_path: Path, class_name: str, file: bool, setting: bool | None
) -> None:
    library = small_tokenizer("byte_level")
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=file)
    settings = {"tokenizer_class": class_name} if setting is None else {"add_prefix_space": setting}
    write_folder(tmp_path, library, {"tokenizer_class": class_name, **settings}, {"model_type": "roberta"})
    texts = [text for text in TEXTS if "<mask>" not in text]  # unlike 4, transformers 5 keeps a space before it
    assert ids_of(tmp_path, texts) == expected_ids(tmp_path, texts)


def test_token_without_an_embedding_is_read_as_text_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model could not embed its id: transformers' models fail with an index error."""
    settings = {**BERT, "additional_special_tokens": ["[E1]", "[E2]"]}
    write_folder(tmp_path, bert(), settings, {"vocab_size": NEW + 1})
    [first, second] = ids_of(tmp_path, ["[E1]", "[E2]"])
    assert first[1:-1] == [NEW]
    assert second == bert().encode("[E2]").ids
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "[E2]" in line
    assert "[E1]" not in line


@pytest.mark.parametrize(
    ("version", "stated", "is_applied"),
    # transformers 4.57.1 applies the setting even to classes that do not define it; 5 does not.
    [("4.57.1", True, True), ("4.57.1", None, False), ("5.1.0", True, False)],
)
def test_space_before_a_text_is_as_the_version_has_it_for_other_classes(
    tmp_path: Path, version: str, stated: bool | None, is_applied: bool
) -> None:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({} if stated is None else {"add_prefix_space": stated}),
    }
    library = small_tokenizer("byte_level")
    write_folder(tmp_path, library, settings, {"model_type": "qwen3", "transformers_version": version})
    plain, spaced = (library.encode(text).ids for text in ("the fox", " the fox"))
    assert plain != spaced
    assert ids_of(tmp_path, ["the fox"]) == [spaced if is_applied else plain]


@pytest.mark.parametrize(
    ("version", "lower_cases"),
    # transformers 4.57.1 leaves a normalizer alone that is not a BertNormalizer; 5 replaces it with one.
    [("4.30.2", True), ("5.1.0", False)],
)
def test_other_normalizers_are_treated_as_by_the_version_of_the_checkpoint(
    tmp_path: Path, version: str, lower_cases: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    library = bert()
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    settings = {**BERT, "do_lower_case": False}
    write_folder(tmp_path, library, settings, {"transformers_version": version})
    [upper, lower] = ids_of(tmp_path, ["HOW", "how"])
    assert (upper == lower) == lower_cases
    [line] = [record.getMessage() for record in caplog.records if "transformers" in record.getMessage()]
    assert f"as in transformers {version[0]}, which wrote the checkpoint" in line
    if version == "5.1.0":
        assert ids_of(tmp_path, TEXTS) == expected_ids(tmp_path, TEXTS)


def test_mask_token_includes_the_space_before_it_as_in_transformers_4(tmp_path: Path) -> None:
    """4.57.1 gave these ids; 5 keeps the space as a token of its own, unless a file describes the mask token."""
    library = small_tokenizer("byte_level")
    library.add_special_tokens(["<mask>"])
    write_folder(tmp_path, library, {"tokenizer_class": "RobertaTokenizer"}, {"model_type": "roberta"})
    mask = library.token_to_id("<mask>")
    [ids] = ids_of(tmp_path, ["a <mask>"])
    assert ids == [0, library.token_to_id("a"), mask, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_lower_case": "no"}, "do_lower_case 'no' is not true or false"),
        ({"added_tokens_decoder": {"x": {"content": "[E1]"}}}, "has the id 'x', which is not a number"),
        ({"added_tokens_decoder": {"7": {}}}, "has the added token {}, which has no content"),
        ({"additional_special_tokens": "[E1]"}, "additional_special_tokens '\\[E1\\]' is not a list"),
        ({"extra_special_tokens": "[E1]"}, "extra_special_tokens '\\[E1\\]' is neither a list nor an object"),
        ({"truncation_side": "middle"}, "truncation_side 'middle' is neither right nor left"),
        ({"truncation_side": []}, r"truncation_side \[\] is neither right nor left"),
    ],
)
def test_malformed_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write_folder(tmp_path, bert(), {**BERT, **settings})
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(Checkpoint.read(tmp_path))
    assert str(tmp_path) in str(caught.value)
