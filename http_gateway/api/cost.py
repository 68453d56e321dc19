"""Headers that say what a request cost: TEI's, and x-truncated-inputs."""

import time

from heddle.v1 import item_pb2
from http_gateway.web.message import Request

# Names and descriptions.
COST_HEADERS = {
    "x-compute-type": "Device of the computation: gpu+optimized, which is TEI's name for a GPU, or cpu",
    "x-compute-time": "The same as x-total-time, under TEI's other name",
    "x-compute-characters": "Code points of texts plus token ids; a query counts once for each text it is scored with",
    "x-compute-tokens": "Tokens that were computed",
    "x-truncated-inputs": "Inputs that were cut off because they were too long",
    "x-total-time": "Milliseconds from the head of the request to its answer",
    "x-tokenization-time": "Milliseconds of tokenization",
    "x-queue-time": "Milliseconds in the queue of the engine, of the input that was there longest",
    "x-inference-time": "Milliseconds in the model, of the input that took longest",
}


def cost_headers(request: Request, usage: item_pb2.Usage, timings: item_pb2.Timings) -> tuple[tuple[str, str], ...]:
    """Times are whole milliseconds, as at TEI. Queue and inference times are those of the slowest input."""
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
