"""Model shapes from config.json, and what a GPU's data sheet makes of them."""

import pytest

from heddle.cli.capacity import Amount
from heddle.cli.data_sheets import GPUS, ModelShape, estimate_engine_pod

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
QWEN = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 3072}


def test_the_shape_of_minilm() -> None:
    shape = ModelShape.read({**MINILM, "model_type": "bert", "vocab_size": 30_522})
    assert shape == ModelShape(6, 384, 384, 384, 1536, gated=False, vocabulary=30_522)
    assert shape.layer_weights == 6 * (4 * 384**2 + 2 * 384 * 1536)


def test_the_shape_of_a_decoder_with_fewer_kv_heads() -> None:
    config = {**QWEN, "model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_669}
    shape = ModelShape.read(config)
    assert shape == ModelShape(28, 1024, 2048, 1024, 3072, gated=True, vocabulary=151_669)
    assert shape.memory_bytes(0) == pytest.approx(2 * 0.596e9, rel=0.01)  # Qwen3-0.6B has 0.596 billion weights


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValueError, match=r"config\.json has none of hidden_size"):
        ModelShape.read({})


def test_an_engine_reaches_the_given_share_of_the_peak() -> None:
    shape = ModelShape(24, 1024, 1024, 1024, 4096, gated=False, vocabulary=30_000)
    engine = estimate_engine_pod(
        GPUS["H100-SXM"], shape, Amount(8), efficiency=0.4, launch_s_per_layer=50e-6, limits=(16_384, 1024)
    )
    assert 1 / engine.per_token_s == pytest.approx(0.4 * 989e12 / (2 * shape.layer_weights), rel=0.01)
    assert engine.fixed_s == pytest.approx(24 * 50e-6 + 2 * shape.layer_weights / 3.35e12)
