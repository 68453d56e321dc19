"""Builds a fast tokenizer from a SentencePiece model, as transformers 4 does for each of its classes.

Called by `tokenizer_svc.text.loading.vocabulary`. The `sentencepiece` package reads the file, and is imported only for
checkpoints that need it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tokenizers
from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from heddle.checkpoint.json_files import CheckpointError, get_field
from tokenizer_svc.text.loading.classes import (
    ALBERT,
    CAMEMBERT,
    DEBERTA_V2,
    GEMMA,
    LLAMA,
    T5,
    XLM_ROBERTA,
    TokenizerClass,
)
from tokenizer_svc.text.loading.folder import SETTINGS, TokenizerFolder

SPACE = "▁"
UNIGRAM, BPE = 1, 2  # ModelProto's model_type
CONTROL, USER_DEFINED = 3, 4  # and the type of a piece

SENTINELS_OF_T5 = 100  # <extra_id_0> and so on, which mark masked spans

# Special tokens of Gemma, which its SentencePiece models store as plain pieces.
TURNS_OF_GEMMA = frozenset({"<start_of_turn>", "<end_of_turn>"})


class Piece(Protocol):
    piece: str
    score: float
    type: int


@dataclass(frozen=True, slots=True)
class SentencePiece:
    """The fields of a ModelProto that are used here."""

    pieces: list[Piece]
    model_type: int
    unknown_id: int
    unknown_piece: str
    character_map: bytes  # compiled normalization rules; empty for none

    @classmethod
    def read(cls, path: Path) -> "SentencePiece":
        try:
            from sentencepiece import sentencepiece_model_pb2
        except ImportError:
            raise CheckpointError(
                f"{path} needs the package sentencepiece, which is not installed: pip install sentencepiece"
            ) from None
        proto: Any = sentencepiece_model_pb2.ModelProto()
        try:
            proto.ParseFromString(path.read_bytes())
        except DecodeError:
            raise CheckpointError(f"{path} is not a SentencePiece model") from None
        trained = proto.trainer_spec
        return cls(
            pieces=list(proto.pieces),
            model_type=trained.model_type,
            unknown_id=trained.unk_id,
            unknown_piece=trained.unk_piece,
            character_map=proto.normalizer_spec.precompiled_charsmap,
        )


def sentence_piece_tokenizer(folder: TokenizerFolder, path: Path) -> tokenizers.Tokenizer:
    trained = SentencePiece.read(path)
    of = folder.tokenizer_class
    tokenizer = tokenizers.Tokenizer(model_of(trained, folder, path))
    special = TURNS_OF_GEMMA if of is GEMMA else frozenset()
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=False, special=piece.type == CONTROL or piece.piece in special)
            for piece in trained.pieces
            if piece.type in (CONTROL, USER_DEFINED)
        ]
    )
    if of is T5:
        tokenizer.add_tokens([AddedToken(name, special=True) for name in sentinels_of(folder)])
    normalizer = normalizer_of(trained, folder)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    pre_tokenizer = pre_tokenizer_of(folder)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder_of(folder)
    if of not in (GEMMA, LLAMA):  # `tokenizer_svc.text.loading.framing` sets theirs
        tokenizer.post_processor = post_processor_of(of, tokenizer)
    return tokenizer


def model_of(trained: SentencePiece, folder: TokenizerFolder, path: Path) -> models.Unigram | models.BPE:
    vocabulary = vocabulary_of(trained, folder)
    has_bytes = folder.tokenizer_class in (GEMMA, LLAMA)
    if trained.model_type == UNIGRAM:
        return models.Unigram(
            vocabulary, unk_id=unknown_id_of(trained, folder.tokenizer_class), byte_fallback=has_bytes
        )
    if trained.model_type == BPE:
        ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        merges = merges_of(ids, dict(vocabulary))
        return models.BPE(ids, merges, unk_token=trained.unknown_piece, fuse_unk=True, byte_fallback=has_bytes)
    raise CheckpointError(f"{path} is neither a unigram nor a BPE model of SentencePiece")


def vocabulary_of(trained: SentencePiece, folder: TokenizerFolder) -> list[tuple[str, float]]:
    """Pieces with their scores, in the order of their ids. Some classes give the first ids to other pieces."""
    of = folder.tokenizer_class
    scored = [(piece.piece, piece.score) for piece in trained.pieces]
    if of is XLM_ROBERTA:
        first = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        return [*first, *scored[3:], ("<mask>", 0.0)]
    if of is CAMEMBERT:
        first = [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)]
        return [*first, *scored[1:], ("<mask>", 0.0)]
    if of is ALBERT:
        return [(piece, score - 100 if ends_number(piece) else score) for piece, score in scored]
    if of is T5:
        return [*scored, *((name, 0.0) for name in reversed(sentinels_of(folder)))]
    if of is GEMMA:
        special = [(folder.special_token(name), 0.0) for name in ("pad_token", "eos_token", "bos_token")]
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


def sentinels_of(folder: TokenizerFolder) -> list[str]:
    count = get_field(folder.settings, "extra_ids", int, folder.path / SETTINGS, SENTINELS_OF_T5)
    return [f"<extra_id_{index}>" for index in range(count)]


def unknown_id_of(trained: SentencePiece, of: TokenizerClass) -> int:
    if of is LLAMA:
        return 0
    return 3 if of in (XLM_ROBERTA, CAMEMBERT, GEMMA) else trained.unknown_id


def merges_of(ids: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """The merges of BPE, best score first. SentencePiece stores the score of a piece, but not the two pieces that it
    was merged from, so all possible pairs are listed."""
    merges: list[tuple[float, str, str]] = []
    for piece, score in scores.items():
        cuts = [(piece[:index], piece[index:]) for index in range(1, len(piece))]
        found = [(left, right) for left, right in cuts if left in ids and right in ids]
        merges += [(score, left, right) for left, right in sorted(found, key=lambda cut: (ids[cut[0]], ids[cut[1]]))]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in merges]


def normalizer_of(trained: SentencePiece, folder: TokenizerFolder) -> normalizers.Normalizer | None:
    of = folder.tokenizer_class
    mapped = [normalizers.Precompiled(trained.character_map)] if trained.character_map else []
    one_space = normalizers.Replace(Regex(" {2,}"), " ")
    if of is GEMMA:
        return normalizers.Replace(" ", SPACE)
    if of is LLAMA:
        return legacy_normalizer(folder) if folder.flag("legacy", default=True) else None
    if of is ALBERT:
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        keeps_accents = folder.flag("keep_accents", default=False)
        accents = [] if keeps_accents else [normalizers.NFKD(), normalizers.StripAccents()]
        return normalizers.Sequence([*quotes, *accents, *lower_case_of(folder, default=True), *mapped, one_space])
    if of is DEBERTA_V2:
        return normalizers.Sequence([*lower_case_of(folder, default=False), normalizers.Strip(), *mapped, one_space])
    trimmed = normalizers.Strip(left=False, right=True)
    return normalizers.Sequence([*mapped, trimmed, normalizers.Replace(Regex(" {2,}"), SPACE)])


def lower_case_of(folder: TokenizerFolder, *, default: bool) -> list[normalizers.Normalizer]:
    return [normalizers.Lowercase()] if folder.flag("do_lower_case", default=default) else []


def legacy_normalizer(folder: TokenizerFolder) -> normalizers.Normalizer:
    prefix = [normalizers.Prepend(SPACE)] if folder.flag("add_prefix_space", default=True) else []
    return normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])


def prepend_scheme_of(folder: TokenizerFolder) -> str:
    """Which parts of a text get a space before them: always (each), first (the first) or never (none)."""
    if not folder.flag("add_prefix_space", default=True):
        return "never"
    has_legacy_setting = folder.tokenizer_class in (LLAMA, T5)
    return "first" if has_legacy_setting and not folder.flag("legacy", default=True) else "always"


def pre_tokenizer_of(folder: TokenizerFolder) -> pre_tokenizers.PreTokenizer | None:
    of = folder.tokenizer_class
    if of is GEMMA:
        return pre_tokenizers.Split(" ", "merged_with_previous")
    if of is LLAMA:
        if folder.flag("legacy", default=True):
            return None
        return pre_tokenizers.Metaspace(SPACE, prepend_scheme_of(folder), split=False)
    spaces = pre_tokenizers.Metaspace(SPACE, prepend_scheme_of(folder))
    if of is DEBERTA_V2 and folder.flag("split_by_punct", default=False):
        return pre_tokenizers.Sequence([pre_tokenizers.Punctuation(behavior="isolated"), spaces])
    return spaces


def decoder_of(folder: TokenizerFolder) -> decoders.Decoder:
    if folder.tokenizer_class not in (GEMMA, LLAMA):
        return decoders.Metaspace(SPACE, prepend_scheme_of(folder))
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if folder.tokenizer_class is LLAMA and folder.flag("add_prefix_space", default=True):
        steps.append(decoders.Strip(" ", left=1))
    return decoders.Sequence(steps)


def post_processor_of(of: TokenizerClass, tokenizer: tokenizers.Tokenizer) -> processors.PostProcessor:
    """Uses the names in the code of transformers 4, even if the settings give the special tokens other names."""
    tokens: tuple[str, ...]
    if of in (ALBERT, DEBERTA_V2):
        tokens, single = ("[CLS]", "[SEP]"), "[CLS] $A [SEP]"
        pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    elif of is T5:
        tokens, single, pair = ("</s>",), "$A </s>", "$A </s> $B </s>"
    else:
        tokens, single, pair = ("<s>", "</s>"), "<s> $A </s>", "<s> $A </s> </s> $B </s>"
    ids = [(token, tokenizer.token_to_id(token)) for token in tokens]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
