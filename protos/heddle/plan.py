"""`heddle plan`: how many pods of each service a load needs, by a queueing model that a simulation checks; or, with
`--simulate`, how policies of balancing compare. Called by heddle.cli; all that is computed is in heddle.planning."""

import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from heddle.checkpoint import Checkpoint
from heddle.console import Console
from heddle.model_source import locate
from heddle.plan_settings import PlanSettings
from heddle.planning.balancing import Policy
from heddle.planning.capacity import Goals, ImpossibleError, Plan, Tiers, plan_with, planned
from heddle.planning.cpu_tier import RequestCost
from heddle.planning.engine import GPUS, EngineModel, engine_on
from heddle.planning.model_shape import model_shape
from heddle.planning.report import Checked, Comparison, as_json, as_table, comparison_json, comparison_table
from heddle.planning.simulation import Cluster, Outcome, simulated
from heddle.planning.traffic import Traffic, WholeNumbers
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError, load

Progress = Callable[[str], None]

# Before that nothing is shown of it.
QUIET_S = 1.0
# Pods are added a twentieth at a time where the simulation misses the target that the queueing model met.
ADDED_SHARE = 0.05
ADDED_TIMES_MAX = 20
# A p99 needs some hundreds of requests beyond it to be steady.
SEQUENCES_PER_POD_MIN = 300


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    settings = load(PlanSettings, argv, environ, prog="heddle plan", env_prefix="HEDDLE_PLAN_")
    console = Console(sys.stderr)
    progress = after_a_while(console.progress)
    try:
        answer = compared(settings, progress) if settings.simulate else sized(settings, progress)
    except (ConfigurationError, ImpossibleError, ValueError) as error:
        print(f"heddle plan: {error}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    finally:
        console.end_progress()
    print(answer)
    return 0


def after_a_while(show: Progress) -> Progress:
    """What is done at once shows no progress."""
    began = time.monotonic()

    def progress(text: str) -> None:
        if time.monotonic() - began > QUIET_S:
            show(text)

    return progress


def sized(settings: PlanSettings, progress: Progress) -> str:
    tiers, traffic, goals = tiers_of(settings), traffic_of(settings), goals_of(settings)
    plan = planned(traffic, tiers, goals, progress)
    checked = None
    if settings.check:
        plan, checked = confirmed(settings, tiers, plan, progress)
    render = as_json if settings.json else as_table
    return render(traffic, tiers, goals, plan, checked)


def confirmed(settings: PlanSettings, tiers: Tiers, plan: Plan, progress: Progress) -> tuple[Plan, Checked]:
    """The plan, with engine pods added until the simulation keeps the goal too."""
    goals, traffic = goals_of(settings), traffic_of(settings)
    added = 0
    for _ in range(ADDED_TIMES_MAX):
        checked = Checked.of(simulated_plan(settings, tiers, plan, progress), plan, tiers, settings.policy, added)
        if checked.p99_s <= goals.p99_s:
            return plan, checked
        added += max(1, round(ADDED_SHARE * plan.engine_pods))
        larger = plan_with(traffic, tiers, goals, plan.engine_pods + max(1, round(ADDED_SHARE * plan.engine_pods)))
        assert larger is not None  # as fewer pods were not overloaded
        plan = larger
    raise ImpossibleError(
        f"simulated, {plan.engine_pods} engine pods still have a p99 of {checked.p99_s * 1000:.0f} ms; what is asked "
        "for is too close to what a text takes on an idle pod"
    )


def simulated_plan(settings: PlanSettings, tiers: Tiers, plan: Plan, progress: Progress) -> Outcome:
    label = f"simulating {plan.engine_pods} engine pods"
    return simulated(
        Cluster(tiers.engine, plan.engine_pods, plan.tokenizer.pods, tiers.network_s),
        traffic_of(settings),
        settings.policy,
        sequences=max(settings.sequences, SEQUENCES_PER_POD_MIN * plan.engine_pods),
        seed=settings.seed,
        progress=functools.partial(show_bar, progress, label),
    )


def compared(settings: PlanSettings, progress: Progress) -> str:
    """Policies by load."""
    tiers, traffic = tiers_of(settings), traffic_of(settings)
    pods = settings.engine_pods or planned(traffic, tiers, goals_of(settings), progress).engine_pods
    cluster = Cluster(
        tiers.engine,
        pods,
        settings.tokenizer_pods,
        tiers.network_s,
        round(settings.slow_pods_share * pods),
        settings.slow_factor,
    )
    full = pods * tiers.engine.tokens_per_s_max(traffic.tokens) / traffic.tokens_per_s
    rows = []
    for offered, policy in itertools.product(settings.loads, Policy):
        show = functools.partial(show_bar, progress, f"{policy} at {offered:.0%}")
        offering = traffic.scaled(offered * full)
        run = simulated(cluster, offering, policy, sequences=settings.sequences, seed=settings.seed, progress=show)
        rows.append(Comparison(offered, policy, run))
    return comparison_json(cluster, rows) if settings.json else comparison_table(cluster, rows)


def show_bar(progress: Progress, label: str, share: float) -> None:
    done = round(20 * share)
    progress(f"{label} {'█' * done}{'·' * (20 - done)} {share:.0%}")


def traffic_of(settings: PlanSettings) -> Traffic:
    if settings.tokens_median:
        tokens = WholeNumbers.log_normal(settings.tokens_median, settings.tokens_sigma, settings.tokens_most)
    else:
        tokens = WholeNumbers(settings.tokens_mean, settings.tokens_spread, settings.tokens_most)
    inputs = WholeNumbers(settings.inputs_mean, settings.inputs_spread, settings.inputs_most)
    return Traffic(settings.requests_per_s, inputs, tokens)


def goals_of(settings: PlanSettings) -> Goals:
    return Goals(settings.p99_ms / 1000, settings.engine_load_max, settings.cpu_load_max)


def tiers_of(settings: PlanSettings) -> Tiers:
    gateway = settings.gateway_request_us, settings.gateway_input_us, settings.gateway_token_ns
    tokenizer = settings.tokenizer_request_us, settings.tokenizer_input_us, settings.tokenizer_token_ns
    return Tiers(cost_of(*gateway), cost_of(*tokenizer), engine_of(settings), settings.network_us * 1e-6)


def cost_of(request_us: float, input_us: float, token_ns: float) -> RequestCost:
    return RequestCost(request_us * 1e-6, input_us * 1e-6, token_ns * 1e-9)


def engine_of(settings: PlanSettings) -> EngineModel:
    """By measured figures where they are given, else by data sheet and model."""
    budget = {"batch_tokens_max": settings.batch_tokens_max, "batch_items_max": settings.batch_items_max}
    if settings.fixed_us is not None and settings.per_token_ns is not None:
        return EngineModel(settings.fixed_us * 1e-6, settings.per_token_ns * 1e-9, **budget)
    checkpoint = Checkpoint.read(locate(settings.model, with_weights=False), settings.model)
    if settings.tokens_most > checkpoint.sequence_tokens_max:
        limit = checkpoint.sequence_tokens_max
        raise ConfigurationError(f"tokens_most is {settings.tokens_most}, and {settings.model} takes {limit} at most")
    return engine_on(
        GPUS[settings.gpu],
        model_shape(checkpoint.config),
        traffic_of(settings).tokens,
        efficiency=settings.efficiency,
        launch_us_per_layer=settings.launch_us_per_layer,
        **budget,
    )
