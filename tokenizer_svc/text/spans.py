"""From the logits of tokens to labelled tokens, or to entities, as transformers.pipeline("ner") makes them.

Pure; `tokenizer_svc.tasks.token_prediction` calls it. Labels and scores of entities are those of the pipeline, to the
last bit. Their text is a slice of the input; their word, if it is asked for, is the pipeline's, which joins spellings
of the vocabulary.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heddle.activations import softmax
from heddle.tensors import Floats
from tokenizer_svc.text.sequence import TextLayout
from tokenizer_svc.text.subwords import Subwords

OUTSIDE = "O"  # the label of what is no entity


class Aggregation(enum.Enum):
    """How tokens become entities; values are those of heddle.v1.Aggregation."""

    NONE = 1
    SIMPLE = 2  # tokens in a row that have the same label, by B- and I-
    FIRST = 3  # words in a row; a word has the label of its first token
    AVERAGE = 4  # … or the best one by the mean of its tokens' scores
    MAX = 5  # … or that of the token which is surest of its own


@dataclass(frozen=True, slots=True)
class Span:
    """A token, or an entity."""

    text: str  # slice of the input; for special tokens as the vocabulary spells them
    token_id: int  # 0 for an entity
    start: int  # code points of the input
    end: int
    scores: dict[str, float]  # by label
    word: str = ""  # the pipeline's spelling, if it is asked for
    special: bool = False  # a token that the tokenizer added


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text with its T tokens, as they were computed."""

    text: str
    ids: "memoryview[int]"  # uint32 [T]
    layout: TextLayout


@dataclass(frozen=True, slots=True)
class Piece:
    """A token or a word, with the label that it was given."""

    label: str
    score: np.float32
    start: int
    end: int
    word: str


def labelled_tokens(
    tokens: Tokens, logits: Floats, labels: Sequence[str], *, raw_scores: bool, subwords: Subwords | None = None
) -> list[Span]:
    """Every token of the sequence, special ones included: the best label and its probability, or, with `raw_scores`,
    all labels and their logits. `logits` are [T, labels]. Without `subwords`, words are empty."""
    if raw_scores:
        by_label = [dict(zip(labels, row, strict=True)) for row in logits.tolist()]
    else:
        by_label = [{label: float(score)} for label, score in best_labels(softmax(logits), labels)]
    layout = tokens.layout
    columns = zip(tokens.ids, layout.offsets, layout.specials, layout.spellings, by_label, strict=True)
    spans = []
    for token_id, (start, end), special, spelling, scores in columns:
        text = spelling if special else tokens.text[start:end]
        word = subwords.spelling(token_id, text) if subwords else ""
        spans.append(Span(text, token_id, start, end, scores, word, bool(special)))
    return spans


def entities(
    tokens: Tokens,
    logits: Floats,
    labels: Sequence[str],
    aggregation: Aggregation,
    subwords: Subwords,
    *,
    with_words: bool = False,
    with_outside: bool = False,
) -> list[Span]:
    """The entities of any aggregation but NONE, in the order of the text. `logits` are [T, labels]. `with_outside` also
    returns spans with the label O."""
    scores = softmax(logits)
    if aggregation is Aggregation.SIMPLE:
        words = [[index] for index, special in enumerate(tokens.layout.specials) if not special]
    else:
        words = subwords.words(tokens.text, tokens.ids, tokens.layout)
    spellings = words_of(tokens, words, aggregation, subwords) if with_words else [""] * len(words)
    offsets = tokens.layout.offsets
    pieces = [
        Piece(label, score, offsets[word[0]][0], offsets[word[-1]][1], spelling)
        for word, spelling, (label, score) in zip(
            words, spellings, best_labels(scores_of_words(scores, words, aggregation), labels), strict=True
        )
    ]
    found = [group for group in groups(pieces) if with_outside or name_of(group) != OUTSIDE]
    joined = [subwords.join([piece.word for piece in group]) if with_words else "" for group in found]
    return [merged(tokens.text, group, word) for group, word in zip(found, joined, strict=True)]


def words_of(tokens: Tokens, words: Sequence[Sequence[int]], aggregation: Aggregation, subwords: Subwords) -> list[str]:
    """The pipeline's spelling of each word. SIMPLE keeps the vocabulary's spelling until tokens are merged."""
    spelled = [
        [subwords.spelling(tokens.ids[index], tokens.text[slice(*tokens.layout.offsets[index])]) for index in word]
        for word in words
    ]
    return [word[0] if aggregation is Aggregation.SIMPLE else subwords.join(word) for word in spelled]


def best_labels(scores: Floats, labels: Sequence[str]) -> Iterator[tuple[str, np.float32]]:
    """Of each row [rows, labels]."""
    for row, best in zip(scores, scores.argmax(axis=-1).tolist(), strict=True):
        yield labels[best], row[best]


def scores_of_words(scores: Floats, words: Sequence[Sequence[int]], aggregation: Aggregation) -> Floats:
    """[words, labels] from those of their tokens [T, labels]."""
    rows = scores[[word[0] for word in words]]
    if aggregation in (Aggregation.AVERAGE, Aggregation.MAX):
        for row, word in enumerate(words):
            if len(word) > 1:
                own = scores[word]
                rows[row] = own.mean(axis=0) if aggregation is Aggregation.AVERAGE else own[own.max(axis=-1).argmax()]
    return rows


def groups(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Neighbours that have the same label, less its B- or I-; a B- begins a new group."""
    found: list[list[Piece]] = []
    for piece in pieces:
        begins, name = tag_of(piece.label)
        if found and not begins and name == tag_of(found[-1][-1].label)[1]:
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


def tag_of(label: str) -> tuple[bool, str]:
    """Whether the label begins an entity, and what it says without B- or I-."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def name_of(group: Sequence[Piece]) -> str:
    """What follows the first hyphen of its label, even if that does not begin with B- or I-."""
    return group[0].label.split("-", 1)[-1]


def merged(text: str, group: Sequence[Piece], word: str) -> Span:
    start, end = group[0].start, group[-1].end
    score = np.mean(np.array([piece.score for piece in group])) if len(group) > 1 else group[0].score
    return Span(text[start:end], 0, start, end, {name_of(group): float(score)}, word)
