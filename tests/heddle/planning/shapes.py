"""Engines and traffic for the tests of planning."""

from heddle.planning.engine import EngineModel
from heddle.planning.traffic import Traffic, WholeNumbers

FAST = EngineModel(fixed_s=2e-3, per_token_s=1e-6, batch_tokens_max=16_384, batch_items_max=1024)
SMALL = EngineModel(fixed_s=20e-3, per_token_s=20e-6, batch_tokens_max=2048, batch_items_max=64)

SINGLE = WholeNumbers(1, 0, 1)
SEVERAL = WholeNumbers(4, 1.0, 64)
TEXTS = WholeNumbers(128, 1.0, 512)
QUERIES = WholeNumbers(8, 0, 8)


def traffic_at(
    load: float, engine: EngineModel, pods: int = 1, tokens: WholeNumbers = TEXTS, inputs: WholeNumbers = SINGLE
) -> Traffic:
    """As a share of the most that the pods can do."""
    one = Traffic(1.0, inputs, tokens)
    return one.scaled(load * pods * engine.tokens_per_s_max(tokens) / one.tokens_per_s)
