"""Texts with a known number of tokens, the same in every run. `workloads` uses them."""

import random
from collections.abc import Iterator

from tests.small_models.reranker_corpus import QUESTIONS, answers

# Each is one token of BERT's vocabulary.
WORDS = """
time year people way day man thing woman life child world school state family student group country problem hand
part place case week company system program question work government number night point home water room mother
area money story fact month lot right study book eye job word business issue side kind head house service friend
""".split()  # noqa: SIM905 # nobody reads ninety quotation marks
SPECIAL_TOKENS = 2


def text_of_tokens(rng: random.Random, tokens: int) -> str:
    """The number includes special tokens."""
    return " ".join(rng.choices(WORDS, k=max(1, tokens - SPECIAL_TOKENS)))


def log_normal_tokens(rng: random.Random, median: float, spread: float, tokens_max: int) -> int:
    """Draws lengths from 4 tokens up: many short and few long ones, as in logs of real traffic."""
    return min(tokens_max, max(4, round(rng.lognormvariate(0, spread) * median)))


def questions_and_documents(rng: random.Random, documents: int) -> Iterator[tuple[str, list[str]]]:
    """Returns queries, each with documents of one to eight sentences, about 20 to 160 tokens. Few of them answer it."""
    facts = answers()
    while True:
        thing, _ = rng.choice(facts)
        sentences = [sentence for _, sentence in facts]
        chosen = [" ".join(rng.sample(sentences, rng.randint(1, 8))) for _ in range(documents)]
        yield rng.choice(QUESTIONS).format(thing), chosen
