"""Entities equal those of transformers' pipeline for the same logits: every strategy, every kind of tokenizer."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, TokenClassificationPipeline

from heddle.tensors import Floats
from tests.small_tokenizers import small_tokenizer
from tests.texts import varied_texts
from tests.tokenizer_svc.encoding import encode_one
from tokenizer_svc.text.entities import Aggregation, AlignedText, Entity, Subwords, find_entities, label_tokens
from tokenizer_svc.text.inputs import Options
from tokenizer_svc.text.sequences import Alignment, TokenSequence, pack_ids
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-X-Y", "X-Y")
TOKENS_MAX = 40
UNKNOWN = {"word_piece": "[UNK]", "unigram": "<unk>", "sentence_piece_bpe": "<unk>", "byte_level": "<unk>", "bare": ""}
TEXTS = varied_texts(200, seed=3)
STRATEGIES = list(Aggregation)

# The pipeline's warning about tokenizers that do not mark sub-words.
pytestmark = pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")


def make_tokenizer(kind: str) -> Tokenizer:
    library = small_tokenizer(kind)
    size = library.get_vocab_size()
    return Tokenizer(library, sequence_tokens_max=TOKENS_MAX, vocabulary_size=size, unknown_token=UNKNOWN[kind])


@cache
def make_pipeline(kind: str, side: Truncation) -> Any:
    """The pipeline, around a model that never runs."""
    config = BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label=dict(enumerate(LABELS)),
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=small_tokenizer(kind),
        model_max_length=TOKENS_MAX,
        truncation_side=side.name.lower(),
        unk_token=UNKNOWN[kind] or None,
    )
    pipeline: Any = TokenClassificationPipeline
    return pipeline(model=BertForTokenClassification(config), tokenizer=tokenizer)


def make_logits(tokens: int, seed: int) -> Floats:
    """Neighbours often share their label."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 2, (tokens // 2 + 1, len(LABELS)))
    return (np.repeat(steps, 2, axis=0)[:tokens] + rng.normal(0, 1, (tokens, len(LABELS)))).astype(np.float32)


def align(text: str, sequence: TokenSequence) -> AlignedText:
    assert sequence.alignment is not None
    return AlignedText(text, memoryview(sequence.token_ids).cast("I"), sequence.alignment)


def run_pipeline(
    pipeline: Any, text: str, strategy: Aggregation, sequence: TokenSequence, logits: Floats
) -> list[tuple[str, float, int, int, str]]:
    """Includes spans with the label O."""
    (inputs,) = pipeline.preprocess(text, is_split_into_words=False)
    ids = inputs["input_ids"][0].tolist()
    assert pack_ids(ids) == sequence.token_ids
    outputs = {**inputs, "logits": torch.from_numpy(logits)[None], "word_ids": None}
    parameters = pipeline._sanitize_parameters(aggregation_strategy=strategy.name.lower(), ignore_labels=[])[2]
    rows = pipeline.postprocess([outputs], **parameters)
    return [
        (row.get("entity_group", row.get("entity")), float(row["score"]), row["start"], row["end"], row["word"])
        for row in rows
    ]


def to_rows(spans: list[Entity]) -> list[tuple[str, float, int, int, str]]:
    return [(label, score, span.start, span.end, span.word) for span in spans for label, score in span.scores.items()]


@pytest.mark.slow
@pytest.mark.parametrize("side", [Truncation.RIGHT, Truncation.LEFT])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_entities_are_those_of_the_pipeline(kind: str, side: Truncation) -> None:
    tokenizer, pipeline = make_tokenizer(kind), make_pipeline(kind, side)
    [results] = tokenizer.encode([(TEXTS, Options(side, with_alignment=True))])
    compared = several = truncated = 0
    for seed, (text, sequence) in enumerate(zip(TEXTS, results, strict=True)):
        if not isinstance(sequence, TokenSequence):  # no special tokens, and nothing else
            continue
        tokens = align(text, sequence)
        logits = make_logits(sequence.tokens, seed)
        for strategy in STRATEGIES:
            expected = run_pipeline(pipeline, text, strategy, sequence, logits)
            if strategy is Aggregation.NONE:
                spans = label_tokens(tokens, logits, LABELS, raw_scores=False, subwords=tokenizer.subwords)
                spans = [span for span in spans if not span.special]
            else:
                every = {"with_words": True, "with_outside": True}
                spans = find_entities(tokens, logits, LABELS, strategy, tokenizer.subwords, **every)
                named = [span for span in spans if "O" not in span.scores]
                assert [replace(span, word="") for span in named] == find_entities(
                    tokens, logits, LABELS, strategy, tokenizer.subwords
                )
                several += any(" " in span.text for span in spans)
            assert to_rows(spans) == expected, (text, strategy)
            assert all(span.text == text[span.start : span.end] for span in spans)
            compared += len(spans)
        truncated += sequence.truncated
    assert compared > 5_000
    assert several > 100
    assert truncated > 20


def make_tokens(text: str, offsets: list[tuple[int, int]], labels: list[str]) -> tuple[AlignedText, Floats]:
    """Tokens with clear labels, without special tokens."""
    alignment = Alignment(offsets, [0] * len(offsets), [text[start:end] for start, end in offsets])
    tokens = AlignedText(text, memoryview(pack_ids(list(range(1, len(offsets) + 1)))).cast("I"), alignment)
    logits = np.full((len(offsets), len(LABELS)), -9, np.float32)
    for row, label in zip(logits, labels, strict=True):
        row[LABELS.index(label)] = 9
    return tokens, logits


def test_a_second_beginning_is_a_second_entity() -> None:
    tokens, logits = make_tokens("Ann Bob Lee", [(0, 3), (4, 7), (8, 11)], ["B-PER", "B-PER", "I-PER"])
    found = find_entities(tokens, logits, LABELS, Aggregation.SIMPLE, Subwords(has_prefix=True, unknown_id=None))
    assert [(span.text, *span.scores) for span in found] == [("Ann", "PER"), ("Bob Lee", "PER")]
    assert {span.token_id for span in found} == {0}


def test_a_word_has_one_label_even_if_its_tokens_differ() -> None:
    tokens, logits = make_tokens("Micro­soft won", [(0, 5), (5, 10), (11, 14)], ["B-PER", "I-LOC", "O"])
    logits[1, LABELS.index("I-LOC")] = 12
    words = Subwords(has_prefix=False, unknown_id=None)
    first, largest = (
        find_entities(tokens, logits, LABELS, strategy, words) for strategy in (Aggregation.FIRST, Aggregation.MAX)
    )
    assert [(span.text, *span.scores) for span in first] == [("Micro­soft", "PER")]
    assert [(span.text, *span.scores) for span in largest] == [("Micro­soft", "LOC")]


def test_without_aggregation_all_tokens_are_returned_with_special_ones() -> None:
    tokenizer = make_tokenizer("word_piece")
    text = "El niño 🎉 İstanbul"
    sequence = encode_one(tokenizer, text, Options(with_alignment=True))
    assert isinstance(sequence, TokenSequence)
    logits = make_logits(sequence.tokens, 0)
    spans = label_tokens(align(text, sequence), logits, LABELS, raw_scores=False)
    assert (spans[0].text, spans[-1].text) == ("[CLS]", "[SEP]")
    assert [(span.start, span.end) for span in (spans[0], spans[-1])] == [(0, 0), (0, 0)]
    assert pack_ids([span.token_id for span in spans]) == sequence.token_ids
    assert all(span.text == text[span.start : span.end] for span in spans[1:-1])
    assert "".join(span.text for span in spans[1:-1]) == text.replace(" ", "")
    assert [len(span.scores) for span in spans] == [1] * len(spans)


def test_raw_scores_are_the_logits_of_every_label() -> None:
    tokens, _ = make_tokens("a b", [(0, 1), (2, 3)], ["O", "O"])
    logits = make_logits(2, 5)
    spans = label_tokens(tokens, logits, LABELS, raw_scores=True)
    assert [list(span.scores) for span in spans] == [list(LABELS)] * 2
    np.testing.assert_array_equal([list(span.scores.values()) for span in spans], logits)


@pytest.mark.parametrize("side", [Truncation.RIGHT, Truncation.LEFT])
def test_offsets_count_from_the_start_of_a_text_that_was_cut_before_tokenization(side: Truncation) -> None:
    text = "Größe é 字 🎉 niño " * 5_000
    sequence = encode_one(make_tokenizer("word_piece"), text, Options(side, with_alignment=True))
    assert isinstance(sequence, TokenSequence)
    assert sequence.alignment is not None
    assert sequence.truncated
    assert len(sequence.alignment.offsets) == len(sequence.alignment.spellings) == sequence.tokens == TOKENS_MAX
    pieces = [text[start:end] for start, end in sequence.alignment.offsets]
    if side is Truncation.RIGHT:
        assert text.replace(" ", "").startswith("".join(pieces))
        assert sequence.alignment.offsets[1][0] == 0
    else:
        assert text.replace(" ", "").endswith("".join(pieces))
        assert sequence.alignment.offsets[-2][1] == len(text) - 1
