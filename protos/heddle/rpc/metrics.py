"""Metrics of the transport: calls and streams of a server, and the pods that a client has."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from heddle.rpc.pool import Pool
from heddle.rpc.stream_server import StreamServer
from heddle.telemetry.metrics import Distribution, counter, gauge, histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

CALL_SECONDS = histogram(
    "heddle_rpc_call_seconds", "Duration of gRPC calls, without long-lived streams", "method", "code"
)
STREAMS = gauge("heddle_rpc_streams", "Open streams from clients")
STREAM_ITEMS = gauge("heddle_rpc_stream_items", "Unanswered items of the streams from clients")
UNSENT_BYTES = gauge("heddle_rpc_stream_unsent_bytes", "Bytes of answers that wait for clients to read them")

PODS = gauge("heddle_rpc_pods", "Pods that this process calls, by state", "model", "state")
PODS_LOST = counter("heddle_rpc_pods_lost_total", "Connections to pods that broke without notice", "model")
RETRIES = counter("heddle_rpc_retries_total", "Items sent again because their pod was lost", "model")
ABANDONED = counter(
    "heddle_rpc_abandoned_items_total", "Items that failed because several pods in a row were lost", "model"
)
EXPIRED = counter("heddle_rpc_expired_items_total", "Items whose deadline passed without an answer", "model")
MOVED = counter("heddle_rpc_moved_items_total", "Items sent to another pod because one was OVERLOADED", "model")
SLOW_PODS = gauge("heddle_rpc_slow_pods", "Pods that are far slower than usual and get no new items", "model")
HEDGED = counter("heddle_rpc_hedged_items_total", "Items also sent to a second pod because the first is slow", "model")
HEDGES_WON = counter("heddle_rpc_hedges_won_total", "Hedged items that the second pod answered first", "model")
POISONED = counter("heddle_rpc_poisoned_items_total", "Items that failed because they crash pods", "model")
STRANDED = gauge("heddle_rpc_stranded_items", "Items that wait because no pod is available", "model")
UNANSWERED = gauge("heddle_rpc_unanswered_items", "Items without an answer, sent or waiting for a pod", "model")


def collect_calls(calls: Mapping[tuple[str, str], Distribution]) -> Iterable["Family"]:
    yield CALL_SECONDS.of(calls)


def collect_streams(server: StreamServer[Any, Any]) -> Iterable["Family"]:
    streams, items, unsent = server.measure()
    yield STREAMS.of(streams)
    yield STREAM_ITEMS.of(items)
    yield UNSENT_BYTES.of(unsent)


def collect_pools(pools: Mapping[str, Pool[Any, Any]]) -> Iterable["Family"]:
    """`pools` by the name of their model."""

    def each(value: Callable[[Pool[Any, Any]], int]) -> dict[str, int]:
        return {model: value(pool) for model, pool in pools.items()}

    states = {(model, state): count for model, pool in pools.items() for state, count in pool.count_pods().items()}
    yield PODS.of(states)
    yield PODS_LOST.of(each(lambda pool: pool.counts.lost_pods))
    yield RETRIES.of(each(lambda pool: pool.counts.resent))
    yield ABANDONED.of(each(lambda pool: pool.counts.abandoned))
    yield EXPIRED.of(each(lambda pool: pool.counts.expired))
    yield MOVED.of(each(lambda pool: pool.counts.moved))
    yield SLOW_PODS.of(each(lambda pool: pool.hedging.count_slow()))
    yield HEDGED.of(each(lambda pool: pool.counts.hedged))
    yield HEDGES_WON.of(each(lambda pool: pool.counts.hedges_won))
    yield POISONED.of(each(lambda pool: pool.counts.poisoned))
    yield STRANDED.of(each(lambda pool: pool.stranded))
    yield UNANSWERED.of(each(lambda pool: pool.unanswered))
