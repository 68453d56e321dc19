"""Turns the logits of tokens into labelled tokens or entities, like transformers.pipeline("ner").

Labels and scores of entities are those of the pipeline, to the last bit. Their text is a slice of the input; their
word, if it is asked for, is the pipeline's, which joins spellings of the vocabulary. The rules for words are those of
`gather_pre_entities` in transformers.pipelines.token_classification, including its guesses, because people compare
with the pipeline.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers

from heddle.activations import softmax
from heddle.tensors import Floats
from tokenizer_svc.text.sequences import Alignment

OUTSIDE = "O"  # the label of text that is no entity


class Aggregation(enum.Enum):
    """How tokens become entities. The values are those of heddle.v1.Aggregation."""

    NONE = 1
    SIMPLE = 2  # consecutive tokens that have the same label, by B- and I-
    FIRST = 3  # consecutive words; a word has the label of its first token
    AVERAGE = 4  # ... or the best label by the mean of its tokens' scores
    MAX = 5  # ... or the label with the highest score of any of its tokens


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity, or a labelled token."""

    text: str  # slice of the input; for special tokens the spelling in the vocabulary
    token_id: int  # 0 for an entity
    start: int  # code points of the input
    end: int
    scores: dict[str, float]  # by label
    word: str = ""  # the pipeline's spelling, if it is asked for
    special: bool = False  # a token that the tokenizer added


@dataclass(frozen=True, slots=True)
class AlignedText:
    """A text with its T tokens."""

    text: str
    ids: "memoryview[int]"  # uint32 [T]
    alignment: Alignment


@dataclass(frozen=True, slots=True)
class LabelledWord:
    """A word, or a token with SIMPLE."""

    label: str
    score: np.float32
    start: int
    end: int
    word: str


@dataclass(frozen=True, slots=True)
class Subwords:
    """Decides which tokens continue the word of the token before them, and spells words."""

    has_prefix: bool  # the vocabulary marks tokens that continue a word, as WordPiece does with ##
    unknown_id: int | None  # the token for text that is not in the vocabulary
    library: tokenizers.Tokenizer | None = None  # only needed to spell words

    @classmethod
    def read(cls, library: tokenizers.Tokenizer, unknown_token: str) -> "Subwords":
        """`unknown_token` is the checkpoint's name for it; "" takes the name from the tokenizer's model."""
        name = unknown_token or getattr(library.model, "unk_token", None)
        return cls(
            has_prefix=bool(getattr(library.model, "continuing_subword_prefix", None)),
            unknown_id=library.token_to_id(name) if name else None,
            library=library,
        )

    def continues(self, text: str, token_id: int, spelling: str, start: int, end: int) -> bool:
        """Whether the token at [start, end) of the text belongs to the word of the token before it."""
        if token_id == self.unknown_id:
            return False
        if self.has_prefix:
            return len(spelling) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

    def find_words(self, tokens: AlignedText) -> list[list[int]]:
        """Indices of the tokens of each word, without special tokens."""
        words: list[list[int]] = []
        alignment = tokens.alignment
        columns = zip(tokens.ids, alignment.spellings, alignment.offsets, alignment.special_tokens_mask, strict=True)
        for index, (token_id, spelling, (start, end), special) in enumerate(columns):
            if special:
                continue
            if words and self.continues(tokens.text, token_id, spelling, start, end):
                words[-1].append(index)
            else:
                words.append([index])
        return words

    def spell(self, token_id: int, written: str) -> str:
        """The vocabulary's spelling of the token; `written`, its text in the input, for an unknown token."""
        if token_id == self.unknown_id or self.library is None:
            return written
        return self.library.id_to_token(token_id) or written

    def join(self, spellings: list[str]) -> str:
        """Joins tokens as the tokenizer's decoder does."""
        decoder = self.library.decoder if self.library else None
        return " ".join(spellings) if decoder is None else str(decoder.decode(spellings))


def label_tokens(
    tokens: AlignedText, logits: Floats, labels: Sequence[str], *, raw_scores: bool, subwords: Subwords | None = None
) -> list[Entity]:
    """Every token, special tokens included, with its best label and the probability of that; with `raw_scores`, with
    all labels and their logits. `logits` are [T, labels]. Without `subwords`, words are empty."""
    if raw_scores:
        by_label = [dict(zip(labels, row, strict=True)) for row in logits.tolist()]
    else:
        by_label = [{label: float(score)} for label, score in _best_labels(softmax(logits), labels)]
    alignment = tokens.alignment
    columns = zip(tokens.ids, alignment.offsets, alignment.special_tokens_mask, alignment.spellings, strict=True)
    labelled = []
    for (token_id, (start, end), special, spelling), scores in zip(columns, by_label, strict=True):
        text = spelling if special else tokens.text[start:end]
        word = subwords.spell(token_id, text) if subwords else ""
        labelled.append(Entity(text, token_id, start, end, scores, word, bool(special)))
    return labelled


def find_entities(
    tokens: AlignedText,
    logits: Floats,
    labels: Sequence[str],
    aggregation: Aggregation,
    subwords: Subwords,
    *,
    with_words: bool = False,
    with_outside: bool = False,
) -> list[Entity]:
    """The entities in the order of the text, for any aggregation but NONE. `logits` are [T, labels]. `with_outside`
    also returns text with the label O."""
    alignment = tokens.alignment
    if aggregation is Aggregation.SIMPLE:
        words = [[index] for index, special in enumerate(alignment.special_tokens_mask) if not special]
    else:
        words = subwords.find_words(tokens)
    spellings = _spell_words(tokens, words, aggregation, subwords) if with_words else [""] * len(words)
    scored = _best_labels(_score_words(softmax(logits), words, aggregation), labels)
    labelled = [
        LabelledWord(label, score, alignment.offsets[word[0]][0], alignment.offsets[word[-1]][1], spelling)
        for word, spelling, (label, score) in zip(words, spellings, scored, strict=True)
    ]
    return [
        _merge(tokens.text, group, subwords.join([word.word for word in group]) if with_words else "")
        for group in _group(labelled)
        if with_outside or _entity_type(group) != OUTSIDE
    ]


def _spell_words(
    tokens: AlignedText, words: Sequence[Sequence[int]], aggregation: Aggregation, subwords: Subwords
) -> list[str]:
    """The pipeline's spelling of each word. SIMPLE keeps the vocabulary's spelling until tokens are merged."""
    offsets = tokens.alignment.offsets
    spelled = [
        [subwords.spell(tokens.ids[index], tokens.text[slice(*offsets[index])]) for index in word] for word in words
    ]
    return [word[0] if aggregation is Aggregation.SIMPLE else subwords.join(word) for word in spelled]


def _best_labels(scores: Floats, labels: Sequence[str]) -> Iterator[tuple[str, np.float32]]:
    """The best label and its score for each row of [rows, labels]."""
    for row, best in zip(scores, scores.argmax(axis=-1).tolist(), strict=True):
        yield labels[best], row[best]


def _score_words(scores: Floats, words: Sequence[Sequence[int]], aggregation: Aggregation) -> Floats:
    """[words, labels] from the scores of their tokens, [T, labels]."""
    rows = scores[[word[0] for word in words]]
    if aggregation in (Aggregation.AVERAGE, Aggregation.MAX):
        for row, word in enumerate(words):
            if len(word) > 1:
                own = scores[word]
                rows[row] = own.mean(axis=0) if aggregation is Aggregation.AVERAGE else own[own.max(axis=-1).argmax()]
    return rows


def _group(words: Sequence[LabelledWord]) -> list[list[LabelledWord]]:
    """Neighbours that have the same label apart from B- or I-; a B- begins a new group."""
    groups: list[list[LabelledWord]] = []
    for word in words:
        begins, name = _split_label(word.label)
        if groups and not begins and name == _split_label(groups[-1][-1].label)[1]:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _split_label(label: str) -> tuple[bool, str]:
    """Whether the label begins an entity, and its name without B- or I-."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _entity_type(group: Sequence[LabelledWord]) -> str:
    """The part of the label after its first hyphen, even if the label does not begin with B- or I-."""
    return group[0].label.split("-", 1)[-1]


def _merge(text: str, group: Sequence[LabelledWord], word: str) -> Entity:
    start, end = group[0].start, group[-1].end
    score = np.mean(np.array([word.score for word in group])) if len(group) > 1 else group[0].score
    return Entity(text[start:end], 0, start, end, {_entity_type(group): float(score)}, word)
