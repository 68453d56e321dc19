"""From a load to pods: the fewest that keep the goals, or a sentence that says why none do."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from heddle.planning.capacity import Goals, ImpossibleError, Tiers, plan_with, planned, pods_visited
from heddle.planning.cpu_tier import RequestCost
from heddle.planning.engine import GPUS, ModelShape, engine_on
from heddle.planning.model_shape import model_shape
from heddle.planning.traffic import Traffic, WholeNumbers
from tests.heddle.planning.shapes import QUERIES, SEVERAL, SINGLE, SMALL, TEXTS

TIERS = Tiers(RequestCost(1e-4, 1e-5, 1e-7), RequestCost(1e-4, 5e-5, 1e-6), SMALL, 1e-4)


@given(st.floats(10, 20_000), st.floats(0.08, 0.5), st.sampled_from([SINGLE, SEVERAL]))
@settings(max_examples=5, deadline=None)
def test_a_plan_has_the_fewest_engine_pods_that_keep_the_goals(rate: float, p99_s: float, inputs: WholeNumbers) -> None:
    traffic = Traffic(rate, inputs, QUERIES)
    goals = Goals(p99_s, engine_load_max=0.8, cpu_load_max=0.6)
    plan = planned(traffic, TIERS, goals)
    assert plan.latency.quantile_s(0.99) <= p99_s
    assert plan.engine.load <= 0.8
    tolerated = 1 + plan.engine_pods // 200  # what the search leaves
    fewer = plan_with(traffic, TIERS, goals, max(1, plan.engine_pods - tolerated))
    assume(plan.engine_pods > 1)
    assert fewer is None or fewer.engine.load > 0.8 or fewer.latency.quantile_s(0.99) > p99_s


@given(st.floats(10, 5000))
@settings(max_examples=5, deadline=None)
def test_more_load_never_needs_fewer_pods(rate: float) -> None:
    goals = Goals(0.2, 0.8, 0.6)
    less, more = (planned(Traffic(factor * rate, SINGLE, TEXTS), TIERS, goals) for factor in (1, 1.5))
    assert less.engine_pods <= more.engine_pods
    assert less.gateway.pods <= more.gateway.pods
    assert less.tokenizer.pods <= more.tokenizer.pods


def test_a_goal_that_an_idle_pod_misses_is_impossible() -> None:
    with pytest.raises(ImpossibleError, match="no number of pods keeps p99 below 10 ms"):
        planned(Traffic(10, SINGLE, TEXTS), TIERS, Goals(0.01, 0.8, 0.6))


@pytest.mark.parametrize("pods", [1, 2, 7, 1000])
def test_pods_visited_are_as_many_as_drawing_gives(pods: int) -> None:
    traffic = Traffic(1, SEVERAL, TEXTS)
    shares = pods_visited(traffic, pods)
    assert shares.sum() == pytest.approx(1)
    random = np.random.default_rng(0)
    drawn = [len(set(random.integers(0, pods, size).tolist())) for size in SEVERAL.draw(random, 20_000)]
    assert shares @ np.arange(shares.size) == pytest.approx(np.mean(drawn), rel=0.03)


def test_the_shape_of_minilm() -> None:
    config = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    shape = model_shape({**config, "model_type": "bert"})
    assert shape == ModelShape(6, 384, 384, 384, 1536, gated=False)
    assert shape.layer_weights == 6 * (4 * 384**2 + 2 * 384 * 1536)


def test_the_shape_of_a_decoder_with_fewer_keys() -> None:
    config = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 3072}
    shape = model_shape({**config, "model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 128})
    assert shape == ModelShape(28, 1024, 2048, 1024, 3072, gated=True)


def test_what_a_config_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"config\.json has none of hidden_size"):
        model_shape({})


def test_an_engine_on_a_gpu_reaches_its_share_of_the_peak() -> None:
    shape = ModelShape(24, 1024, 1024, 1024, 4096, gated=False)
    engine = engine_on(
        GPUS["H100-SXM"],
        shape,
        QUERIES,
        efficiency=0.4,
        launch_us_per_layer=50,
        batch_tokens_max=16_384,
        batch_items_max=1024,
    )
    assert 1 / engine.per_token_s == pytest.approx(0.4 * 989e12 / (2 * shape.layer_weights), rel=0.01)
    assert engine.fixed_s == pytest.approx(24 * 50e-6 + 2 * shape.layer_weights / 3.35e12)
