"""Folders without a tokenizer.json: tokenizers built from the other files give the ids of AutoTokenizer.

Where the versions of transformers differ, the reference is 4, because 5 always writes a tokenizer.json. The literals
are the ids of AutoTokenizer 4.57.1, which cannot be installed beside the version 5 that the other tests need.
"""
# ruff: noqa: RUF001 - other alphabets are the point

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import packaged_folder
from tests.checkpoints import write_json
from tests.damaged_files import SUBSTITUTES
from tests.small_vocabularies import write_vocabulary
from tests.texts import SENTENCES, varied_texts
from tests.tokenizer_svc.text.loading.folders import TEXTS, expected_ids, ids_of, write_folder
from tokenizer_svc.text.loading.fast_tokenizer import load_fast_tokenizer
from tokenizer_svc.text.tokenizer import Tokenizer

# Both versions give these the same ids on all texts. Before <mask>, 5 keeps a space that 4 drops.
AGREEING: list[tuple[str, dict[str, Any] | None]] = [
    ("BertTokenizer", {}),
    ("BertTokenizer", None),
    ("BertTokenizer", {"do_lower_case": False}),
    ("BertTokenizer", {"strip_accents": False}),
    ("BertTokenizer", {"tokenize_chinese_chars": False}),
    ("BertTokenizer", {"additional_special_tokens": ["[E1]"]}),
    ("DistilBertTokenizer", {"do_lower_case": False}),
    ("DistilBertTokenizer", None),
    ("ElectraTokenizer", {}),
    ("MPNetTokenizer", {}),
    ("MPNetTokenizer", {"do_lower_case": False}),
    ("RobertaTokenizer", {}),
    ("RobertaTokenizer", {"add_prefix_space": True}),
    ("GPT2Tokenizer", {}),
    ("Qwen2Tokenizer", {}),
    ("XLMRobertaTokenizer", {}),
    ("XLMRobertaTokenizer", {"additional_special_tokens": ["[E1]"]}),
    ("CamembertTokenizer", {}),
    ("T5Tokenizer", {}),
    ("T5Tokenizer", {"extra_ids": 10, "legacy": False}),
]

ALBERT = {
    "a [MASK] b": "[CLS] ▁a [MASK] ▁b [SEP]",
    "  two  spaces ": "[CLS] ▁t w o ▁s p a c e s ▁ [SEP]",
    "costs 3, now": "[CLS] ▁co s t s ▁3 , ▁n o w [SEP]",
    " ": "[CLS] ▁ [SEP]",
    "\u200b": "[CLS] ▁ [SEP]",
}
LLAMA: dict[str, str] = {
    "Hello World": "<s> ▁H e l l o ▁W o r l d",
    "  two  spaces ": "<s> ▁ ▁ ▁t w o ▁ ▁s p a c e s ▁",
    "<s>x</s> y": "<s> <s> ▁ x </s> ▁ ▁ y",
    "机器学习 🎉": "<s> ▁机器学习 ▁🎉",
    "a\nb": "<s> ▁a <0x0A> b",
}
OF_TRANSFORMERS_4: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("AlbertTokenizer", {}, {**ALBERT, "``quoted'' Élan": '[CLS] ▁" q u o t e d " ▁e l a n [SEP]'}),
    (
        "AlbertTokenizer",
        {"keep_accents": True, "do_lower_case": False},
        {**ALBERT, "``quoted'' Élan": '[CLS] ▁" q u o t e d " ▁ <unk> l a n [SEP]'},
    ),
    (
        "DebertaV2Tokenizer",
        {},
        {
            "a\u00a0b": "[CLS] ▁a ▁b [SEP]",
            "ＦＵＬＬ ﬁ ½": "[CLS] ▁F [UNK] L L ▁f i ▁1 [UNK] 2 [SEP]",
            "  two  spaces ": "[CLS] ▁t w o ▁s p a c e s [SEP]",
            "\u200b": "[CLS] ▁ [SEP]",
            "A\tB\nC": "[CLS] ▁ [UNK] ▁B ▁ C [SEP]",
        },
    ),
    (
        "DebertaV2Tokenizer",
        {"split_by_punct": True, "do_lower_case": True},
        {"Well, a\u00a0b!": "[CLS] ▁ w e l l ▁ , ▁a ▁b ▁ ! [SEP]"},
    ),
    ("RobertaTokenizer", {}, {"a <mask>, b<mask>": "<s> a <mask> , Ġb <mask> </s>"}),
    ("LlamaTokenizer", {}, LLAMA),
    (
        "LlamaTokenizer",
        {"legacy": False, "add_eos_token": True},
        {
            "Hello World": "<s> ▁H e l l o ▁W o r l d </s>",
            "  two  spaces ": "<s> ▁ ▁t w o ▁ ▁s p a c e s ▁ </s>",
            "<s>x</s> y": "<s> <s> x </s> ▁ y </s>",
            "a\nb": "<s> ▁a <0x0A> b </s>",
        },
    ),
    (
        "GemmaTokenizer",
        {},
        {
            "Hello World": "<bos> H e l l o ▁W o r l d",
            "  two  spaces ": "<bos> ▁ ▁t w o ▁ ▁s p a c e s ▁",
            "机器学习 🎉": "<bos> 机 器 学 习 ▁🎉",
            "<start_of_turn>user\tx": "<bos> <start_of_turn> u s e r \t x",
        },
    ),
]


@pytest.mark.parametrize(("class_name", "settings"), AGREEING)
def test_ids_are_those_of_transformers(tmp_path: Path, class_name: str, settings: dict[str, Any] | None) -> None:
    write_vocabulary(tmp_path, class_name, settings, max_position_embeddings=8192)
    texts = [*TEXTS, *varied_texts(120)[len(SENTENCES) :]]
    if class_name == "RobertaTokenizer":
        texts = [text for text in texts if "<mask>" not in text]
    texts = [text for text in texts if len(text) < 5000]
    assert ids_of(tmp_path, texts) == expected_ids(tmp_path, texts)


@pytest.mark.parametrize(("class_name", "settings"), AGREEING)
def test_pairs_are_joined_as_transformers_joins_them(
    tmp_path: Path, class_name: str, settings: dict[str, Any] | None
) -> None:
    from transformers import AutoTokenizer

    write_vocabulary(tmp_path, class_name, settings)
    expected = AutoTokenizer.from_pretrained(tmp_path)("the fox", "jumps")
    ours = load_fast_tokenizer(Checkpoint.read(tmp_path)).library.encode("the fox", "jumps")
    assert ours.ids == expected["input_ids"]
    if class_name == "BertTokenizer":
        assert ours.type_ids == expected["token_type_ids"]


@pytest.mark.parametrize(("class_name", "settings", "expected"), OF_TRANSFORMERS_4)
def test_tokens_are_those_of_transformers_4(
    tmp_path: Path, class_name: str, settings: dict[str, Any], expected: dict[str, str]
) -> None:
    write_vocabulary(tmp_path, class_name, settings)
    tokenizer = load_fast_tokenizer(Checkpoint.read(tmp_path)).library
    spelled = {text: [tokenizer.id_to_token(token_id) for token_id in tokenizer.encode(text).ids] for text in expected}
    assert {text: " ".join(str(token) for token in tokens) for text, tokens in spelled.items()} == expected


@pytest.mark.parametrize("class_name", ["AlbertTokenizer", "DebertaV2Tokenizer"])
def test_plain_sentences_have_the_ids_of_either_version(tmp_path: Path, class_name: str) -> None:
    write_vocabulary(tmp_path, class_name, {})
    # The versions differ in commas after numbers, and in letters that NFKC changes.
    texts = [text for text in SENTENCES if "429," not in text and "ﬁ" not in text]
    assert ids_of(tmp_path, texts) == expected_ids(tmp_path, texts)


def test_published_vocabulary_gives_the_ids_of_the_published_tokenizer_json(tmp_path: Path) -> None:
    published = packaged_folder()
    assert published
    shutil.copytree(published, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer.json", "*.safetensors"))
    texts = varied_texts(300)
    assert ids_of(tmp_path / "model", texts) == ids_of(published, texts)


def test_decoded_text_is_the_one_that_was_encoded(tmp_path: Path) -> None:
    for class_name in ("XLMRobertaTokenizer", "LlamaTokenizer", "RobertaTokenizer", "GemmaTokenizer"):
        write_vocabulary(tmp_path / class_name, class_name, {})
        tokenizer = Tokenizer.load(Checkpoint.read(tmp_path / class_name))
        [[ids]] = tokenizer.encode([(["the quick fox"], tokenizer.options())])
        assert tokenizer.decode(ids.token_ids) == "the quick fox"  # type: ignore[union-attr]


def test_folder_with_tokenizer_json_is_read_from_it_alone(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "BertTokenizer", {})
    load_fast_tokenizer(Checkpoint.read(tmp_path)).library.save(str(tmp_path / "tokenizer.json"))
    before = ids_of(tmp_path, SENTENCES)
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    assert ids_of(tmp_path, SENTENCES) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "vocab.txt").unlink(),
            "has no tokenizer.json, and no files to build a BertTokenizer",
        ),
        (lambda folder: (folder / "vocab.txt").write_text("a\nb\n"), "cannot build a BertTokenizer"),
        (lambda folder: (folder / "vocab.txt").write_bytes(b"\xff\xfe"), "vocab.txt cannot be read"),
        (
            lambda folder: write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}),
            "has no tokenizer.json, and no files to build a BertJapaneseTokenizer from",
        ),
        (
            lambda folder: write_json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
            "has neither tokenizer.json nor vocab.json",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json cannot be used"),
    ],
)
def test_an_error_is_one_sentence_that_names_the_folder(tmp_path: Path, change: Any, message: str) -> None:
    write_vocabulary(tmp_path, "BertTokenizer", {})
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(Checkpoint.read(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizer_json_that_cannot_encode_is_named(tmp_path: Path) -> None:
    library = Library(models.WordPiece({"[CLS]": 0}, unk_token="[UNK]"))
    write_folder(tmp_path, library, {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* cannot be used: .*\[UNK\]"):
        Tokenizer.load(Checkpoint.read(tmp_path))


def test_broken_sentence_piece_model_is_named(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, "XLMRobertaTokenizer", {})
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(CheckpointError, match=r"sentencepiece\.bpe\.model is not a SentencePiece model"):
        Tokenizer.load(Checkpoint.read(tmp_path))


@pytest.mark.parametrize("content", SUBSTITUTES)
@pytest.mark.parametrize(
    ("class_name", "file"),
    [
        ("BertTokenizer", "vocab.txt"),
        ("BertTokenizer", "tokenizer.json"),
        ("RobertaTokenizer", "merges.txt"),
        ("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
        ("XLMRobertaTokenizer", "tokenizer_config.json"),
    ],
)
def test_a_failed_download_is_recognised(tmp_path: Path, class_name: str, file: str, content: bytes) -> None:
    write_vocabulary(tmp_path, class_name, {})
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file} {SUBSTITUTES[content]}"):
        Tokenizer.load(Checkpoint.read(tmp_path))


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vocabulary(tmp_path, "T5Tokenizer", {})
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(CheckpointError, match="needs the package sentencepiece, which is not installed"):
        Tokenizer.load(Checkpoint.read(tmp_path))
