"""The requests of each workload, their order, and the requests whose answers are checked.

No request is repeated within thousands, because Heddle computes equal texts of a batch only once.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from tests.bench.texts import SPECIAL_TOKENS, log_normal_tokens, questions_and_documents, text_of_tokens

TOKENS_MAX = 256  # of all-MiniLM-L6-v2: what is beyond is cut
DOCUMENTS = 32
STORM_INPUTS = 2048


@dataclass(frozen=True)
class Request:
    """Texts to embed, or documents to rank if there is a query."""

    texts: list[str]
    query: str = ""

    @property
    def tokens(self) -> int:
        """Tokens up to the model's limit, for texts made of WORDS only; 0 for documents, which are not counted."""
        return 0 if self.query else sum(min(TOKENS_MAX, text.count(" ") + 1 + SPECIAL_TOKENS) for text in self.texts)


@dataclass(frozen=True)
class Workload:
    name: str
    unit: str  # what its throughput is told in: requests, tokens or pairs
    made: Callable[[random.Random], list[Request]]
    meaning: str
    check_every: int = 32  # so many requests there is one whose answer is compared with the reference; 0: none

    @cached_property
    def requests(self) -> list[Request]:
        return self.made(random.Random(self.name))

    @property
    def checked(self) -> list[int]:
        """Indices of the requests whose answers are compared with the reference."""
        return list(range(0, len(self.requests), self.check_every)) if self.check_every else []

    def first_of(self, turn: int) -> int:
        """Where a turn starts: at a checked request, and elsewhere in each turn."""
        step = self.check_every or 1
        return turn * 7919 * step % len(self.requests) // step * step


def short(rng: random.Random) -> list[Request]:
    return [Request([text_of_tokens(rng, 5)]) for _ in range(8192)]


def long(rng: random.Random) -> list[Request]:
    return [Request([text_of_tokens(rng, 500)]) for _ in range(2048)]


def mix(rng: random.Random) -> list[Request]:
    return [Request(mixed_texts(rng)) for _ in range(1024)]


def mixed_texts(rng: random.Random) -> list[str]:
    inputs = min(64, max(1, round(rng.lognormvariate(0, 1.4) * 2)))
    return [text_of_tokens(rng, log_normal_tokens(rng, median=32, spread=0.9, tokens_max=512)) for _ in range(inputs)]


def rerank(rng: random.Random) -> list[Request]:
    return [Request(documents, query) for query, documents in islice(questions_and_documents(rng, DOCUMENTS), 256)]


def storm(rng: random.Random) -> list[Request]:
    return [Request([text_of_tokens(rng, 500) for _ in range(STORM_INPUTS)])]


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("short", "requests", short, "one text of 5 tokens per request"),
        Workload("long", "tokens", long, "one text of 500 tokens per request, of which the model takes 256"),
        Workload("mix", "tokens", mix, "1-64 texts per request, 4-512 tokens each, both log-normal"),
        Workload("rerank", "pairs", rerank, f"one query and {DOCUMENTS} documents of 20-160 tokens per request", 16),
        Workload("storm", "tokens", storm, f"{STORM_INPUTS:,} texts of 500 tokens in one request", 0),
    )
}
