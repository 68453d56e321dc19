"""Builds a fast tokenizer from the vocabulary files of a folder without tokenizer.json, as transformers 4 does.

transformers 5 always writes a tokenizer.json, so folders without one come from version 4 or older.
"""

from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from heddle.checkpoint.json_files import CheckpointError, read_json, read_text
from heddle.checkpoint.tokenizer_files import BYTE_LEVEL_FILES, SENTENCE_PIECE_FILES, VOCABULARY_FILES, WORD_PIECE_FILE
from tokenizer_svc.text.loading.normalization import build_bert_normalizer
from tokenizer_svc.text.loading.sentence_piece import build_sentence_piece
from tokenizer_svc.text.loading.tokenizer_config import GPT2, MPNET, QWEN2, TokenizerConfig

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Raises CheckpointError if the tokenizer class is not known, or its files are missing or broken."""
    build = config.tokenizer_class.build
    if build is None or not any((config.folder / name).is_file() for name in VOCABULARY_FILES):
        raise CheckpointError(
            f"{config.folder} has no tokenizer.json, and no files to build a {config.class_name or 'tokenizer'} from; "
            "save the tokenizer with save_pretrained of transformers, which writes a tokenizer.json"
        )
    try:
        if build == "wordpiece":
            return build_word_piece(config)
        if build == "byte_level":
            return build_byte_level(config)
        return build_sentence_piece(config, find_file(config.folder, SENTENCE_PIECE_FILES))
    except CheckpointError:
        raise
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{config.folder}: cannot build a {config.class_name}: {error}") from error


def find_file(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has neither tokenizer.json nor {' nor '.join(names)}")


def build_word_piece(config: TokenizerConfig) -> tokenizers.Tokenizer:
    # Not str.splitlines, which also splits at other characters than line feeds.
    lines = read_text(find_file(config.folder, (WORD_PIECE_FILE,))).split("\n")
    ids = {token: index for index, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=config.special_token("unk_token")))
    tokenizer.normalizer = build_bert_normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    start, end = config.special_token("cls_token"), config.special_token("sep_token")
    second = ["$B:1", f"{end}:1"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[start, "$A", end],
        pair=[start, "$A", end, *([end] if config.tokenizer_class is MPNET else []), *second],
        special_tokens=[(token, ids[token]) for token in (start, end)],
    )
    return tokenizer


def build_byte_level(config: TokenizerConfig) -> tokenizers.Tokenizer:
    vocabulary, merges = (find_file(config.folder, (name,)) for name in BYTE_LEVEL_FILES)
    ids = read_json(vocabulary)
    adds_prefix = config.flag("add_prefix_space", default=False)
    lines = read_text(merges).split("\n")
    pairs = [(left, right) for line in lines for left, _, right in [line.strip().partition(" ")] if right]
    pairs = pairs[1:] if lines[0].startswith("#version") else pairs
    tokenizer = tokenizers.Tokenizer(
        models.BPE(ids, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_prefix)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if config.tokenizer_class is QWEN2:
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=adds_prefix, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    elif config.tokenizer_class is not GPT2:
        end, start = ((name, ids[name]) for name in map(config.special_token, ("sep_token", "cls_token")))
        tokenizer.post_processor = processors.RobertaProcessing(end, start, add_prefix_space=adds_prefix)
    return tokenizer
