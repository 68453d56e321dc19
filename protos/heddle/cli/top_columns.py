"""The columns of `heddle top` for gateways, tokenizer pods and engine pods, and the format of their values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heddle.cli.scrape import Interval

NOTHING = "-"

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a service. In a narrow terminal, columns of the largest `rank` are left out first."""

    title: str
    rank: int
    value: Callable[[Interval], Value]
    write: Callable[[float], str] = str
    is_summed: bool = False  # has a total over the services
    warning: str = ""  # style of values above `warns_above`
    warns_above: float = 0.0


def write_count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.1f}{unit}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def write_bytes(value: float) -> str:
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if value >= size:
            return f"{value / size:.1f}{unit}" if value < 10 * size else f"{value / size:.0f}{unit}"
    return f"{value:.0f}"


def write_seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    milliseconds = value * 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 or not value else f"{milliseconds:.1f} ms"


def write_percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def write_age(value: float) -> str:
    for unit, size, smaller, below in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if value >= size:
            return f"{value // size:.0f}{unit} {value % size // below:.0f}{smaller}"
    return f"{value:.0f}s"


def rate(name: str, **labels: str) -> Callable[[Interval], Value]:
    return lambda interval: interval.rate(name, **labels)


def gauge(name: str, **labels: str) -> Callable[[Interval], Value]:
    return lambda interval: interval.after.total(name, **labels)


def mean(name: str) -> Callable[[Interval], Value]:
    return lambda interval: interval.mean(name)


def quantile(q: float, name: str) -> Callable[[Interval], Value]:
    return lambda interval: interval.quantile(q, name)


def label(name: str) -> Callable[[Interval], Value]:
    return lambda interval: interval.after.describe().get(name) or None


def short_model(interval: Interval) -> Value:
    """The model's name without the organisation on the hub, or without its folder."""
    models = (interval.after.describe().get("model") or "").split(",")
    return ",".join(model.rstrip("/").rpartition("/")[2] for model in models) or None


def statuses(begin: str, but: str = "") -> Callable[[Interval], Value]:
    """Requests per second whose HTTP status begins with `begin`, without those with the status `but`."""

    def find(interval: Interval) -> Value:
        if interval.before is None:
            return None
        rates = interval.rates_by("status", "heddle_gateway_request_seconds_count")
        return sum(each for status, each in rates.items() if status.startswith(begin) and status != but)

    return find


def failures(name: str) -> Callable[[Interval], Value]:
    """Requests per second with an outcome other than ok."""

    def find(interval: Interval) -> Value:
        rates = interval.rates_by("outcome", name)
        return sum(each for outcome, each in rates.items() if outcome != "ok") if rates else None

    return find


def pods(interval: Interval) -> Value:
    """The number of connected pods, and of pods in each other state."""
    states = {state: int(count) for state, count in interval.after.totals_by("state", "heddle_rpc_pods").items()}
    if not states:
        return None
    others = [f"{count} {state}" for state, count in states.items() if count and state != "connected"]
    return ", ".join([str(states.get("connected", 0)), *others])


def uptime(interval: Interval) -> Value:
    started = interval.after.total("process_start_time_seconds")
    return None if started is None else max(0.0, interval.after.wall - started)


def device_memory(interval: Interval) -> Value:
    total, used = (interval.after.total("heddle_engine_device_memory_bytes", kind=kind) for kind in ("total", "used"))
    return f"{write_bytes(used)}/{write_bytes(total)}" if total and used is not None else None


def share(of: str, limit: str) -> Callable[[Interval], Value]:
    """A gauge as a share of another gauge."""

    def find(interval: Interval) -> Value:
        value, most = interval.after.total(of), interval.after.total(limit)
        return value / most if most and value is not None else None

    return find


RED, YELLOW = "bold red", "yellow"

PROCESS = (
    Column("cpu", 4, rate("process_cpu_seconds_total"), write_percent, is_summed=True),
    Column("memory", 5, gauge("process_resident_memory_bytes"), write_bytes, is_summed=True),
    Column("lag p99", 12, quantile(0.99, "heddle_process_event_loop_lag_seconds"), write_seconds, False, YELLOW, 0.1),
    Column("up", 7, uptime, write_age),
)

CALLED_PODS = (
    Column("pods", 6, pods),
    Column("retried", 10, rate("heddle_rpc_retries_total"), write_count, True, YELLOW),
    Column("hedged", 11, rate("heddle_rpc_hedged_items_total"), write_count, True, YELLOW),
    Column("lost", 9, gauge("heddle_rpc_pods_lost_total"), write_count, True, YELLOW),
)

REQUEST, STAGE = "heddle_gateway_request_seconds", "heddle_tokenizer_stage_seconds"

GATEWAY = (
    Column("model", 13, short_model),
    Column("req/s", 0, rate(f"{REQUEST}_count"), write_count, is_summed=True),
    Column("2xx", 8, statuses("2"), write_count, is_summed=True),
    Column("4xx", 3, statuses("4", but="429"), write_count, True, YELLOW),
    Column("429", 2, statuses("429"), write_count, True, YELLOW),
    Column("5xx", 1, statuses("5"), write_count, True, RED),
    Column("p50", 2, quantile(0.5, REQUEST), write_seconds),
    Column("p99", 1, quantile(0.99, REQUEST), write_seconds),
    Column("tok/s", 2, rate("heddle_gateway_tokens_total"), write_count, is_summed=True),
    Column("open", 3, gauge("heddle_gateway_requests"), write_count, is_summed=True),
    *CALLED_PODS,
    *PROCESS,
)

TOKENIZER = (
    Column("model", 13, short_model),
    Column("req/s", 0, rate("heddle_tokenizer_requests_total"), write_count, is_summed=True),
    Column("failed", 1, failures("heddle_tokenizer_requests_total"), write_count, True, RED),
    Column("expired", 8, rate("heddle_rpc_expired_items_total"), write_count, True, YELLOW),
    Column("p50", 2, quantile(0.5, "heddle_tokenizer_request_seconds"), write_seconds),
    Column("p99", 1, quantile(0.99, "heddle_tokenizer_request_seconds"), write_seconds),
    Column("tok/s", 2, rate("heddle_tokenizer_tokens_total"), write_count, is_summed=True),
    Column("open", 3, gauge("heddle_tokenizer_running_requests"), write_count, is_summed=True),
    Column("queue", 3, gauge("heddle_tokenizer_queued_bytes"), write_bytes, is_summed=True),
    Column("age", 4, gauge("heddle_tokenizer_queue_age_seconds"), write_seconds, False, YELLOW, 1),
    *CALLED_PODS,
    *PROCESS,
)

ENGINE = (
    Column("model", 13, short_model),
    Column("device", 9, label("device")),
    Column("dtype", 14, label("dtype")),
    Column("seq/s", 1, rate("heddle_engine_sequences_total"), write_count, is_summed=True),
    Column("tok/s", 0, rate("heddle_engine_tokens_total"), write_count, is_summed=True),
    Column("pass p50", 8, quantile(0.5, "heddle_engine_pass_seconds"), write_seconds),
    Column("p99", 3, quantile(0.99, "heddle_engine_pass_seconds"), write_seconds),
    Column("passes", 3, gauge("heddle_engine_running_passes"), write_count, is_summed=True),
    Column("fill", 2, mean("heddle_engine_batch_fill_ratio"), write_percent),
    Column("batch", 10, mean("heddle_engine_batch_tokens"), write_count),
    Column("queue", 3, gauge("heddle_engine_queued_sequences"), write_count, is_summed=True),
    Column("queue tok", 2, gauge("heddle_engine_queued_tokens"), write_count, is_summed=True),
    Column("queue used", 11, share("heddle_engine_queued_tokens", "heddle_engine_queued_tokens_max"), write_percent),
    Column("age", 1, gauge("heddle_engine_queue_age_seconds"), write_seconds, False, YELLOW, 1),
    Column("refused", 4, rate("heddle_engine_refused_submissions_total"), write_count, True, YELLOW),
    Column("expired", 5, rate("heddle_engine_expired_sequences_total"), write_count, True, YELLOW),
    Column("failed", 6, rate("heddle_engine_failed_sequences_total"), write_count, True, RED),
    Column("gpu memory", 6, device_memory),
    *PROCESS,
)

# By the `service` of heddle_build_info, in the order of a request.
COLUMNS: Mapping[str, Sequence[Column]] = {"gateway": GATEWAY, "tokenizer": TOKENIZER, "engine": ENGINE}
