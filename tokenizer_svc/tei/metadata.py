"""TEI's figures about a request, made of ours: in its responses as `Metadata`, and as headers of its unary calls."""

from heddle.tei.v1 import tei_pb2
from heddle.v1 import item_pb2


def metadata_of(chars: int, usage: item_pb2.Usage, timings: item_pb2.Timings) -> tei_pb2.Metadata:
    """`chars` are code points of the texts, without a prompt."""
    return tei_pb2.Metadata(
        compute_chars=chars,
        compute_tokens=usage.tokens,
        total_time_ns=timings.total_us * 1000,
        tokenization_time_ns=timings.tokenize_us * 1000,
        queue_time_ns=timings.queue_us * 1000,
        inference_time_ns=timings.compute_us * 1000,
    )


def headers(metadata: tei_pb2.Metadata) -> tuple[tuple[str, str], ...]:
    """Times in whole milliseconds."""
    return (
        ("x-compute-time", milliseconds(metadata.total_time_ns)),
        ("x-compute-characters", str(metadata.compute_chars)),
        ("x-compute-tokens", str(metadata.compute_tokens)),
        ("x-total-time", milliseconds(metadata.total_time_ns)),
        ("x-tokenization-time", milliseconds(metadata.tokenization_time_ns)),
        ("x-queue-time", milliseconds(metadata.queue_time_ns)),
        ("x-inference-time", milliseconds(metadata.inference_time_ns)),
    )


def milliseconds(nanoseconds: int) -> str:
    return str(nanoseconds // 1_000_000)
