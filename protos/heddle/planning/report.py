"""Plans and comparisons as tables for people and JSON for programs. Called by heddle.plan."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heddle.planning.balancing import Policy
from heddle.planning.capacity import Goals, Plan, Tiers
from heddle.planning.delays import SHARES, Delays
from heddle.planning.simulation import Cluster, Outcome
from heddle.planning.traffic import Traffic

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Checked:
    """What the simulation says of a plan. Latencies are those of the whole way, as the plan's are."""

    p50_s: float
    p99_s: float
    utilization: float
    batch_tokens: float
    policy: Policy
    added_pods: int  # to what the queueing model found enough

    @classmethod
    def of(cls, run: Outcome, plan: Plan, tiers: Tiers, policy: Policy, added_pods: int) -> "Checked":
        """The simulation begins and ends at the tokenizer; the way before that is the plan's."""
        before = plan.gateway.latency.plus(plan.tokenizer.latency).plus(Delays.always(2 * tiers.network_s))
        whole = Delays(np.quantile(run.latencies_s, SHARES)).plus(before)
        p50_s, p99_s = whole.quantile_s(0.5), whole.quantile_s(0.99)
        return cls(p50_s, p99_s, run.utilization, run.batch_tokens, policy, added_pods)


@dataclass(frozen=True, slots=True)
class Comparison:
    load: float
    policy: Policy
    run: Outcome


def as_table(traffic: Traffic, tiers: Tiers, goals: Goals, plan: Plan, checked: Checked | None) -> str:
    engine = tiers.engine
    full = engine.full_batch_tokens(traffic.tokens)
    rows = [
        ("", "pods", "load", "p50 ms", "p99 ms"),
        ("gateway", str(plan.gateway.pods), percent(plan.gateway.load), *both_ms(plan.gateway.latency)),
        ("tokenizer", str(plan.tokenizer.pods), percent(plan.tokenizer.load), *both_ms(plan.tokenizer.latency)),
        ("engine", str(plan.engine_pods), percent(plan.engine.load), *both_ms(plan.engine_latency)),
        ("all, with the network", "", "", *both_ms(plan.latency)),
    ]
    if checked is not None:
        rows.append(("simulated", "", "", ms(checked.p50_s), ms(checked.p99_s)))
    busy, batch_tokens = percent(plan.engine.busy), f"{plan.engine.batch_tokens:,.0f}"
    tokens = f"{traffic.tokens.average:.0f} tokens, {traffic.tokens_per_s:,.0f} tokens/s"
    figures = f"{engine.fixed_s * 1e6:,.0f} us a batch and {engine.per_token_s * 1e9:,.0f} ns a token"
    lines = [
        f"{traffic.requests_per_s:,.0f} requests/s, {traffic.sequences_per_s:,.0f} sequences/s of {tokens}",
        f"p99 within {goals.p99_s * 1000:g} ms",
        f"an engine pod: {figures}, {full / engine.batch_s(full):,.0f} tokens/s at most",
        "",
        *aligned(rows),
        "",
        f"An engine pod computes {busy} of the time, in batches of {batch_tokens} tokens.",
        f"Its load is a share of what it would do in full batches, of {full:,.0f} tokens.",
    ]
    if checked is not None and checked.added_pods:
        lines.append(f"{checked.added_pods} engine pods are there because the simulation asks for them.")
    return "\n".join(lines)


def as_json(traffic: Traffic, tiers: Tiers, goals: Goals, plan: Plan, checked: Checked | None) -> str:
    def tier(pods: int, load: float, latency: Delays) -> dict[str, Any]:
        return {"pods": pods, "load": load, "p50_ms": in_ms(latency, 0.5), "p99_ms": in_ms(latency, 0.99)}

    engine = tier(plan.engine_pods, plan.engine.load, plan.engine_latency)
    engine |= {"busy": plan.engine.busy, "batch_tokens": plan.engine.batch_tokens}
    engine |= {"fixed_us": tiers.engine.fixed_s * 1e6, "per_token_ns": tiers.engine.per_token_s * 1e9}
    engine["tokens_per_s_max"] = tiers.engine.tokens_per_s_max(traffic.tokens)
    whole = {
        "requests_per_s": traffic.requests_per_s,
        "tokens_per_s": traffic.tokens_per_s,
        "p99_ms_wanted": goals.p99_s * 1000,
        "gateway": tier(plan.gateway.pods, plan.gateway.load, plan.gateway.latency),
        "tokenizer": tier(plan.tokenizer.pods, plan.tokenizer.load, plan.tokenizer.latency),
        "engine": engine,
        "p50_ms": in_ms(plan.latency, 0.5),
        "p99_ms": in_ms(plan.latency, 0.99),
        "simulated": checked
        and {
            "p50_ms": checked.p50_s * 1000,
            "p99_ms": checked.p99_s * 1000,
            "busy": checked.utilization,
            "batch_tokens": checked.batch_tokens,
            "policy": checked.policy,
            "added_pods": checked.added_pods,
        },
    }
    return json.dumps(whole, indent=2)


def comparison_table(cluster: Cluster, rows: Sequence[Comparison]) -> str:
    slow = f", {cluster.slow_pods} of them {cluster.slow_factor:g} times slower" if cluster.slow_pods else ""
    table = [("load", "policy", "p50 ms", "p99 ms", "computing", "tokens a batch")]
    for row in rows:
        latencies = ms(row.run.latency_s(0.5)), ms(row.run.latency_s(0.99))
        computing = percent(row.run.utilization)
        table.append((percent(row.load), row.policy, *latencies, computing, f"{row.run.batch_tokens:,.0f}"))
    return "\n".join([f"{cluster.pods} engine pods{slow}, {cluster.clients} tokenizer pods", "", *aligned(table)])


def comparison_json(cluster: Cluster, rows: Sequence[Comparison]) -> str:
    results = [
        {
            "load": row.load,
            "policy": row.policy,
            "p50_ms": row.run.latency_s(0.5) * 1000,
            "p99_ms": row.run.latency_s(0.99) * 1000,
            "computing": row.run.utilization,
            "batch_tokens": row.run.batch_tokens,
        }
        for row in rows
    ]
    shape = {"engine_pods": cluster.pods, "tokenizer_pods": cluster.clients, "slow_pods": cluster.slow_pods}
    return json.dumps({**shape, "results": results}, indent=2)


def aligned(rows: Sequence[Row]) -> list[str]:
    """Words on the left, numbers on the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_number = [any(cell[:1].isdigit() for row in rows[1:] for cell in [row[column]]) for column in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in rows
    ]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def both_ms(latency: Delays) -> tuple[str, str]:
    return ms(latency.quantile_s(0.5)), ms(latency.quantile_s(0.99))


def in_ms(latency: Delays, share: float) -> float:
    return latency.quantile_s(share) * 1000
