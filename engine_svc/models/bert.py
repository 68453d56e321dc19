"""BERT, as transformers names its config and weights: MiniLM, BGE, E5, GTE (base, large), mxbai and most others."""

from collections.abc import Mapping
from typing import Any

from engine_svc.models.encoder import Embeddings, Encoder, Layer, LayerNorm
from engine_svc.models.linear import ACTIVATIONS, linear
from engine_svc.models.weights import Weights
from heddle.checkpoint_files import CheckpointError

PREFIX = "bert."  # of the encoder's weights in a model with a head


def load(config: Mapping[str, Any], weights: Weights) -> Encoder:
    """Raises CheckpointError for a tensor that is missing or not of the config's shape, and for what BERT is not."""
    check_supported(config, weights)
    return Encoder(
        embeddings=load_embeddings(config, weights),
        layers=[load_layer(config, weights, index) for index in range(config["num_hidden_layers"])],
        head_dim=config["hidden_size"] // config["num_attention_heads"],
    )


def check_supported(config: Mapping[str, Any], weights: Weights) -> None:
    where = weights.folder / "config.json"
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise CheckpointError(f"{where} has no {name}, or one that is not a positive number")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise CheckpointError(f"{where}: hidden_size is not a multiple of num_attention_heads")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"{where}: position_embedding_type {config['position_embedding_type']} is not supported")
    if config.get("hidden_act", "gelu") not in ACTIVATIONS:
        raise CheckpointError(f"{where}: hidden_act {config['hidden_act']} is not supported")
    if config.get("is_decoder"):
        raise CheckpointError(f"{where}: BERT as a decoder is not supported")


def load_embeddings(config: Mapping[str, Any], weights: Weights) -> Embeddings:
    hidden = config["hidden_size"]
    return Embeddings(
        words=weights.take("embeddings.word_embeddings.weight", [config["vocab_size"], hidden]),
        positions=weights.take(
            "embeddings.position_embeddings.weight", [config.get("max_position_embeddings", 512), hidden]
        ),
        types=weights.take("embeddings.token_type_embeddings.weight", [config.get("type_vocab_size", 2), hidden]),
        norm=load_norm(config, weights, "embeddings.LayerNorm"),
    )


def load_layer(config: Mapping[str, Any], weights: Weights, index: int) -> Layer:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    name = f"encoder.layer.{index}"
    projections = [f"{name}.attention.self.{projection}" for projection in ("query", "key", "value")]
    return Layer(
        heads=config["num_attention_heads"],
        query_key_value=linear(
            weights.stacked([f"{projection}.weight" for projection in projections], [hidden, hidden]),
            weights.stacked([f"{projection}.bias" for projection in projections], [hidden]),
        ),
        attention_output=linear(
            weights.take(f"{name}.attention.output.dense.weight", [hidden, hidden]),
            weights.take(f"{name}.attention.output.dense.bias", [hidden]),
        ),
        attention_norm=load_norm(config, weights, f"{name}.attention.output.LayerNorm"),
        feed_forward_input=linear(
            weights.take(f"{name}.intermediate.dense.weight", [intermediate, hidden]),
            weights.take(f"{name}.intermediate.dense.bias", [intermediate]),
            ACTIVATIONS[config.get("hidden_act", "gelu")],
        ),
        feed_forward_output=linear(
            weights.take(f"{name}.output.dense.weight", [hidden, intermediate]),
            weights.take(f"{name}.output.dense.bias", [hidden]),
        ),
        feed_forward_norm=load_norm(config, weights, f"{name}.output.LayerNorm"),
    )


def load_norm(config: Mapping[str, Any], weights: Weights, name: str) -> LayerNorm:
    shape = [config["hidden_size"]]
    epsilon = config.get("layer_norm_eps", 1e-12)
    return LayerNorm(weights.take(f"{name}.weight", shape), weights.take(f"{name}.bias", shape), epsilon)
