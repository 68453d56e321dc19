"""Parts of answers that several APIs share: cost headers, usage, the order of scores, and token vectors."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np

from heddle import tensors
from heddle.tensors import Floats
from heddle.v1 import item_pb2, tensor_pb2
from http_gateway.web.message import Answer, LazyList, Request
from http_gateway.web.routing import post

# Names and descriptions. All are TEI's but x-truncated-inputs.
COST_HEADERS = {
    "x-compute-type": "Device of the computation: cpu, or gpu+optimized, which is TEI's name for a GPU",
    "x-compute-time": "The same as x-total-time, under TEI's other name",
    "x-compute-characters": "Code points of texts plus token ids; a query counts once for each text it is scored with",
    "x-compute-tokens": "Tokens that were computed",
    "x-truncated-inputs": "Inputs that were truncated because they were too long",
    "x-total-time": "Milliseconds from the arrival of the request's headers to its answer",
    "x-tokenization-time": "Milliseconds of tokenization",
    "x-queue-time": "Milliseconds in the engine's queue, of the input that waited longest",
    "x-inference-time": "Milliseconds in the model, of the input that took longest",
}

# For routes whose answers have the cost headers.
post_with_costs = partial(post, headers=COST_HEADERS)


class Costs(Protocol):
    """The fields that the responses of tokenizer pods have in common."""

    @property
    def usage(self) -> item_pb2.Usage: ...
    @property
    def timings(self) -> item_pb2.Timings: ...


def answer_with_costs(value: Any, request: Request, costs: Costs) -> Answer:
    return Answer(value, cost_headers(request, costs.usage, costs.timings))


def cost_headers(request: Request, usage: item_pb2.Usage, timings: item_pb2.Timings) -> tuple[tuple[str, str], ...]:
    """Times are whole milliseconds, as at TEI. Also adds the costs to the request, for the metrics."""
    request.tokens += usage.tokens
    request.characters += usage.characters
    request.truncated_inputs += usage.truncated_inputs
    total = str(round(1000 * (time.monotonic() - request.arrived)))
    values = (
        "gpu+optimized" if usage.device == "cuda" else "cpu",
        total,
        str(usage.characters),
        str(usage.tokens),
        str(usage.truncated_inputs),
        total,
        str(round(timings.tokenize_us / 1000)),
        str(round(timings.queue_us / 1000)),
        str(round(timings.compute_us / 1000)),
    )
    return tuple(zip(COST_HEADERS, values, strict=True))


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


def usage_value(usage: item_pb2.Usage) -> dict[str, int]:
    """A `Usage` for the writer."""
    tokens = usage.tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def rank(ranking: bytes, scores: Floats) -> list[int]:
    """Indices of the scores, best first. `ranking` comes from the tokenizer pod, which sorts by logits, so that scores
    that round to the same number are in order too. A pod of an earlier version sends none; then equal scores keep the
    order of the input."""
    indices = np.frombuffer(ranking, "<u4") if ranking else np.argsort(-scores, kind="stable")
    order: list[int] = indices.tolist()
    return order


def rank_rows(ranking: bytes, table: Floats) -> Callable[[int], list[int]]:
    """`rank` for a row of the table [inputs, labels]."""
    row_bytes = 4 * table.shape[1]
    return lambda row: rank(ranking[row * row_bytes : (row + 1) * row_bytes], table[row])


class TokenRows:
    """The rows of a tensor, one for each token. They may be many: its bytes are copied only when they are iterated."""

    def __init__(self, tensor: tensor_pb2.Tensor) -> None:
        self._tensor = tensor

    def __len__(self) -> int:
        return self._tensor.shape[0]

    def __iter__(self) -> Iterator[Floats]:
        return iter(tensors.from_proto(self._tensor))


def token_rows(tensor: tensor_pb2.Tensor) -> LazyList:
    return LazyList(TokenRows(tensor))
