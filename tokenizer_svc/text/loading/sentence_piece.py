"""Builds a fast tokenizer from a SentencePiece model, as transformers 4 does for each of its classes.

The `sentencepiece` package reads the file, and is imported only for checkpoints that need it.
"""

from pathlib import Path
from typing import Any

import tokenizers
from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from heddle.checkpoint.damaged_files import explain
from heddle.checkpoint.json_files import CheckpointError
from tokenizer_svc.text.loading.tokenizer_config import (
    ALBERT,
    CAMEMBERT,
    DEBERTA_V2,
    GEMMA,
    LLAMA,
    T5,
    XLM_ROBERTA,
    TokenizerClass,
    TokenizerConfig,
)

SPACE = "▁"
UNIGRAM, BPE = 1, 2  # ModelProto's model_type
CONTROL, USER_DEFINED = 3, 4  # and the type of a piece

T5_SENTINELS = 100  # <extra_id_0> and so on, which mark masked spans

# Special tokens of Gemma, which its SentencePiece models store as plain pieces.
GEMMA_TURNS = frozenset({"<start_of_turn>", "<end_of_turn>"})


def build_sentence_piece(config: TokenizerConfig, path: Path) -> tokenizers.Tokenizer:
    proto = read_model(path)
    class_ = config.tokenizer_class
    tokenizer = tokenizers.Tokenizer(build_model(proto, config, path))
    special = GEMMA_TURNS if class_ is GEMMA else frozenset()
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=False, special=piece.type == CONTROL or piece.piece in special)
            for piece in proto.pieces
            if piece.type in (CONTROL, USER_DEFINED)
        ]
    )
    if class_ is T5:
        tokenizer.add_tokens([AddedToken(name, special=True) for name in list_sentinels(config)])
    normalizer = build_normalizer(proto, config)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    pre_tokenizer = build_pre_tokenizer(config)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = build_decoder(config)
    if class_ not in (GEMMA, LLAMA):  # see post_processor.py
        tokenizer.post_processor = build_post_processor(class_, tokenizer)
    return tokenizer


def read_model(path: Path) -> Any:
    """Reads a `sentencepiece.ModelProto`. Raises CheckpointError."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise CheckpointError(
            f"{path} needs the package sentencepiece, which is not installed: pip install sentencepiece"
        ) from None
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        raise CheckpointError(f"{path} {explain(path) or 'is not a SentencePiece model'}")
    return proto


def build_model(proto: Any, config: TokenizerConfig, path: Path) -> models.Unigram | models.BPE:
    vocabulary = build_pieces(proto, config)
    has_bytes = config.tokenizer_class in (GEMMA, LLAMA)
    if proto.trainer_spec.model_type == UNIGRAM:
        return models.Unigram(
            vocabulary, unk_id=find_unknown_id(proto, config.tokenizer_class), byte_fallback=has_bytes
        )
    if proto.trainer_spec.model_type == BPE:
        ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        merges = compute_merges(ids, dict(vocabulary))
        return models.BPE(ids, merges, unk_token=proto.trainer_spec.unk_piece, fuse_unk=True, byte_fallback=has_bytes)
    raise CheckpointError(f"{path} is neither a unigram nor a BPE model of SentencePiece")


def build_pieces(proto: Any, config: TokenizerConfig) -> list[tuple[str, float]]:
    """Pieces with their scores, in the order of their ids. Some classes give the first ids to other pieces."""
    class_ = config.tokenizer_class
    scored = [(piece.piece, piece.score) for piece in proto.pieces]
    if class_ is XLM_ROBERTA:
        first = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        return [*first, *scored[3:], ("<mask>", 0.0)]
    if class_ is CAMEMBERT:
        first = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
        return [*first, *scored[1:], ("<mask>", 0.0)]
    if class_ is ALBERT:
        return [(piece, score - 100 if ends_number(piece) else score) for piece, score in scored]
    if class_ is T5:
        return [*scored, *((name, 0.0) for name in reversed(list_sentinels(config)))]
    if class_ is GEMMA:
        special = [(config.special_token(name), 0.0) for name in ("pad_token", "eos_token", "bos_token")]
        return with_tabulator([*special, *scored[3:]])
    return scored


def ends_number(piece: str) -> bool:
    """Whether a piece ends with a digit and a comma. ALBERT always splits off that comma."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def with_tabulator(vocabulary: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Makes the byte piece of the tab character a plain piece, as transformers does for Gemma."""
    if any(piece == "\t" for piece, _ in vocabulary):
        return vocabulary
    return [("\t", 0.0) if piece == "<0x09>" else (piece, score) for piece, score in vocabulary]


def list_sentinels(config: TokenizerConfig) -> list[str]:
    count = config.read_field("extra_ids", int, T5_SENTINELS)
    return [f"<extra_id_{index}>" for index in range(count)]


def find_unknown_id(proto: Any, class_: TokenizerClass) -> int:
    if class_ is LLAMA:
        return 0
    return 3 if class_ in (XLM_ROBERTA, CAMEMBERT, GEMMA) else int(proto.trainer_spec.unk_id)


def compute_merges(ids: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """The merges of BPE, best score first. SentencePiece stores the score of a piece, but not the two pieces that it
    was merged from, so all possible pairs are listed."""
    merges: list[tuple[float, str, str]] = []
    for piece, score in scores.items():
        cuts = [(piece[:index], piece[index:]) for index in range(1, len(piece))]
        found = [(left, right) for left, right in cuts if left in ids and right in ids]
        merges += [(score, left, right) for left, right in sorted(found, key=lambda cut: (ids[cut[0]], ids[cut[1]]))]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in merges]


def build_normalizer(proto: Any, config: TokenizerConfig) -> normalizers.Normalizer | None:
    class_ = config.tokenizer_class
    rules = proto.normalizer_spec.precompiled_charsmap
    mapped = [normalizers.Precompiled(rules)] if rules else []
    one_space = normalizers.Replace(Regex(" {2,}"), " ")
    if class_ is GEMMA:
        return normalizers.Replace(" ", SPACE)
    if class_ is LLAMA:
        return build_legacy_normalizer(config) if config.flag("legacy", default=True) else None
    if class_ is ALBERT:
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        keeps_accents = config.flag("keep_accents", default=False)
        accents = [] if keeps_accents else [normalizers.NFKD(), normalizers.StripAccents()]
        return normalizers.Sequence([*quotes, *accents, *build_lower_case(config, default=True), *mapped, one_space])
    if class_ is DEBERTA_V2:
        return normalizers.Sequence([*build_lower_case(config, default=False), normalizers.Strip(), *mapped, one_space])
    trimmed = normalizers.Strip(left=False, right=True)
    return normalizers.Sequence([*mapped, trimmed, normalizers.Replace(Regex(" {2,}"), SPACE)])


def build_lower_case(config: TokenizerConfig, *, default: bool) -> list[normalizers.Normalizer]:
    return [normalizers.Lowercase()] if config.flag("do_lower_case", default=default) else []


def build_legacy_normalizer(config: TokenizerConfig) -> normalizers.Normalizer:
    prefix = [normalizers.Prepend(SPACE)] if config.flag("add_prefix_space", default=True) else []
    return normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])


def choose_prepend_scheme(config: TokenizerConfig) -> str:
    """Which parts of a text get a space before them: always (each), first (the first) or never (none)."""
    if not config.flag("add_prefix_space", default=True):
        return "never"
    has_legacy_setting = config.tokenizer_class in (LLAMA, T5)
    return "first" if has_legacy_setting and not config.flag("legacy", default=True) else "always"


def build_pre_tokenizer(config: TokenizerConfig) -> pre_tokenizers.PreTokenizer | None:
    class_ = config.tokenizer_class
    if class_ is GEMMA:
        return pre_tokenizers.Split(" ", "merged_with_previous")
    if class_ is LLAMA:
        if config.flag("legacy", default=True):
            return None
        return pre_tokenizers.Metaspace(SPACE, choose_prepend_scheme(config), split=False)
    spaces = pre_tokenizers.Metaspace(SPACE, choose_prepend_scheme(config))
    if class_ is DEBERTA_V2 and config.flag("split_by_punct", default=False):
        return pre_tokenizers.Sequence([pre_tokenizers.Punctuation(behavior="isolated"), spaces])
    return spaces


def build_decoder(config: TokenizerConfig) -> decoders.Decoder:
    if config.tokenizer_class not in (GEMMA, LLAMA):
        return decoders.Metaspace(SPACE, choose_prepend_scheme(config))
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if config.tokenizer_class is LLAMA and config.flag("add_prefix_space", default=True):
        steps.append(decoders.Strip(" ", left=1))
    return decoders.Sequence(steps)


def build_post_processor(class_: TokenizerClass, tokenizer: tokenizers.Tokenizer) -> processors.PostProcessor:
    """Uses the names in the code of transformers 4, even if the settings give the special tokens other names."""
    tokens: tuple[str, ...]
    if class_ in (ALBERT, DEBERTA_V2):
        tokens, single = ("[CLS]", "[SEP]"), "[CLS] $A [SEP]"
        pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    elif class_ is T5:
        tokens, single, pair = ("</s>",), "$A </s>", "$A </s> $B </s>"
    else:
        tokens, single, pair = ("<s>", "</s>"), "<s> $A </s>", "<s> $A </s> </s> $B </s>"
    ids = [(token, tokenizer.token_to_id(token)) for token in tokens]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
