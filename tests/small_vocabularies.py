"""Small tokenizer folders without tokenizer.json, like those of older checkpoints. They are the same in every run.
Tests of the loading of vocabulary files use them."""

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import pre_tokenizers

from tests.checkpoints import SMALL_BERT, write_json
from tests.texts import SENTENCES

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # types of pieces

# The first pieces of each model. Tokenizer classes have other names for some of them.
FIRST_PIECES: Mapping[str, list[tuple[str, int]]] = {
    "AlbertTokenizer": [
        ("<pad>", CONTROL),
        ("<unk>", UNKNOWN),
        ("[CLS]", CONTROL),
        ("[SEP]", CONTROL),
        ("[MASK]", CONTROL),
        ("▁3,", 1),
        ("▁3", 1),
    ],
    "CamembertTokenizer": [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)],
    "DebertaV2Tokenizer": [
        ("[PAD]", CONTROL),
        ("[CLS]", CONTROL),
        ("[SEP]", CONTROL),
        ("[UNK]", UNKNOWN),
    ],
    "GemmaTokenizer": [
        ("<pad>", CONTROL),
        ("<eos>", CONTROL),
        ("<bos>", CONTROL),
        ("<unk>", UNKNOWN),
        ("<mask>", USER_DEFINED),
        ("<start_of_turn>", USER_DEFINED),
    ],
    "LlamaTokenizer": [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)],
    "T5Tokenizer": [("<pad>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN)],
    "XLMRobertaTokenizer": [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)],
}
SENTENCE_PIECE_NAMES: Mapping[str, str] = {
    "AlbertTokenizer": "spiece.model",
    "CamembertTokenizer": "sentencepiece.bpe.model",
    "DebertaV2Tokenizer": "spm.model",
    "GemmaTokenizer": "tokenizer.model",
    "LlamaTokenizer": "tokenizer.model",
    "T5Tokenizer": "spiece.model",
    "XLMRobertaTokenizer": "sentencepiece.bpe.model",
}
MODEL_TYPES: Mapping[str, str] = {
    "AlbertTokenizer": "albert",
    "BertTokenizer": "bert",
    "CamembertTokenizer": "camembert",
    "DebertaV2Tokenizer": "deberta-v2",
    "DistilBertTokenizer": "distilbert",
    "ElectraTokenizer": "electra",
    "GPT2Tokenizer": "gpt2",
    "GemmaTokenizer": "gemma",
    "LlamaTokenizer": "llama",
    "MPNetTokenizer": "mpnet",
    "Qwen2Tokenizer": "qwen3",
    "RobertaTokenizer": "roberta",
    "T5Tokenizer": "t5",
    "XLMRobertaTokenizer": "xlm-roberta",
}
BYTE_PAIRS = ("GemmaTokenizer", "LlamaTokenizer")


def write_vocabulary(folder: Path, class_name: str, settings: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """Writes vocabulary files, config.json and, if settings are given, tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    if class_name in FIRST_PIECES:
        (folder / SENTENCE_PIECE_NAMES[class_name]).write_bytes(sentence_piece_model(class_name))
    elif class_name in ("GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer"):
        write_byte_pairs(folder, class_name)
    else:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in word_pieces(class_name)), encoding="utf-8")
    if settings is not None:
        write_json(folder / "tokenizer_config.json", settings)
    stated = {"vocab_size": 10_000, "model_type": MODEL_TYPES[class_name], "architectures": ["BertModel"], **config}
    write_json(folder / "config.json", {**SMALL_BERT, **stated})
    return folder


def word_pieces(class_name: str) -> list[str]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if class_name == "MPNetTokenizer":
        special = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
    chars = sorted({char for sentence in SENTENCES for char in sentence + sentence.lower() if not char.isspace()})
    words = sorted({word for sentence in SENTENCES for word in sentence.lower().split() if word.isalpha()})
    cased = sorted({word for sentence in SENTENCES for word in sentence.split() if word.istitle()} - {*chars})
    return list(dict.fromkeys([*special, *chars, *(f"##{char}" for char in chars), *words, *cased, "cafe", "##s"]))


def write_byte_pairs(folder: Path, class_name: str) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [*(f"Ġ {letter}" for letter in letters), "t h", "th e", "h e", "i n", "o n", "Ġt he", "Ã ©"]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if class_name == "RobertaTokenizer" else ["<|endoftext|>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


@cache
def character_map() -> bytes:
    """Compiles the rules of NFKC as SentencePiece does."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f"]),
        model_writer=trained,
        model_type="char",
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        minloglevel=3,
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def sentence_piece_model(class_name: str) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = 2 if class_name in BYTE_PAIRS else 1
    proto.normalizer_spec.precompiled_charsmap = b"" if class_name in BYTE_PAIRS else character_map()
    first = FIRST_PIECES[class_name]
    for index, (piece, kind) in enumerate(first):
        proto.pieces.add(piece=piece, score=0.0, type=kind)
        if kind == UNKNOWN:
            proto.trainer_spec.unk_id, proto.trainer_spec.unk_piece = index, piece
    if class_name in BYTE_PAIRS:
        proto.trainer_spec.byte_fallback = True
        for byte in range(256):
            proto.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=BYTE)
    seen = {piece for piece, _ in first}
    for rank, piece in enumerate(piece for piece in pieces() if piece not in seen):
        proto.pieces.add(piece=piece, score=-float(rank) if class_name in BYTE_PAIRS else -5.0 - 0.01 * rank)
    return bytes(proto.SerializeToString())


def pieces() -> list[str]:
    """Returns whole words, beginnings of words, and characters, the most common first."""
    words = sorted(
        {f"▁{word}" for sentence in SENTENCES for word in sentence.split()}, key=lambda word: (len(word), word)
    )
    starts = sorted({word[:length] for word in words for length in range(2, len(word))} - {*words})
    chars = sorted({char for word in words for char in word})
    return ["▁", *starts, *words, *(char for char in chars if char != "▁")]
