"""Builds a fast tokenizer from the vocabulary files of a folder without tokenizer.json, as transformers 4 does.

Called by `loading.fast_tokenizer`. transformers 5 always writes a tokenizer.json, so folders without one
come from version 4 or older.
"""

from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from heddle.checkpoint.json_files import CheckpointError, read_json, read_text
from heddle.checkpoint.tokenizer_files import BYTE_LEVEL_FILES, SENTENCE_PIECE_FILES, VOCABULARY_FILES, WORD_PIECE_FILE
from tokenizer_svc.text.loading.classes import GPT2, MPNET, QWEN2
from tokenizer_svc.text.loading.folder import TokenizerFolder
from tokenizer_svc.text.loading.normalizing import bert_normalizer
from tokenizer_svc.text.loading.sentence_piece import sentence_piece_tokenizer

WORDS_OF_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(folder: TokenizerFolder) -> tokenizers.Tokenizer:
    """Raises CheckpointError if the class is not one of `loading.classes`, or its files are missing or
    broken."""
    build = folder.tokenizer_class.build
    if build is None or not any((folder.path / name).is_file() for name in VOCABULARY_FILES):
        raise CheckpointError(
            f"{folder.path} has no tokenizer.json, and no files to build a {folder.class_name or 'tokenizer'} from; "
            "save the tokenizer with save_pretrained of transformers, which writes a tokenizer.json"
        )
    try:
        if build == "wordpiece":
            return word_piece_tokenizer(folder)
        if build == "byte_level":
            return byte_level_tokenizer(folder)
        return sentence_piece_tokenizer(folder, first_of(folder.path, SENTENCE_PIECE_FILES))
    except CheckpointError:
        raise
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{folder.path}: cannot build a {folder.class_name}: {error}") from error


def first_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has neither tokenizer.json nor {' nor '.join(names)}")


def word_piece_tokenizer(folder: TokenizerFolder) -> tokenizers.Tokenizer:
    # Not str.splitlines, which also splits at other characters than line feeds.
    lines = read_text(first_of(folder.path, (WORD_PIECE_FILE,))).split("\n")
    ids = {token: index for index, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=folder.special_token("unk_token")))
    tokenizer.normalizer = bert_normalizer(folder)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    start, end = folder.special_token("cls_token"), folder.special_token("sep_token")
    second = ["$B:1", f"{end}:1"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[start, "$A", end],
        pair=[start, "$A", end, *([end] if folder.tokenizer_class is MPNET else []), *second],
        special_tokens=[(token, ids[token]) for token in (start, end)],
    )
    return tokenizer


def byte_level_tokenizer(folder: TokenizerFolder) -> tokenizers.Tokenizer:
    vocabulary, merges = (first_of(folder.path, (name,)) for name in BYTE_LEVEL_FILES)
    ids = read_json(vocabulary)
    adds_prefix = folder.flag("add_prefix_space", default=False)
    lines = read_text(merges).split("\n")
    pairs = [(left, right) for line in lines for left, _, right in [line.strip().partition(" ")] if right]
    pairs = pairs[1:] if lines[0].startswith("#version") else pairs
    tokenizer = tokenizers.Tokenizer(
        models.BPE(ids, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_prefix)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if folder.tokenizer_class is QWEN2:
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(WORDS_OF_QWEN2), behavior="isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=adds_prefix, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    elif folder.tokenizer_class is not GPT2:
        end, start = ((name, ids[name]) for name in map(folder.special_token, ("sep_token", "cls_token")))
        tokenizer.post_processor = processors.RobertaProcessing(end, start, add_prefix_space=adds_prefix)
    return tokenizer
