"""References for published checkpoints whose code is not part of transformers, with the published settings.

`published_references` calls it first. Each function returns the tensors by the authors' names, and a reference for the
outputs. The models are those of `cases_of/`, which explain how they relate to the authors' code.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3ForSequenceClassification,
    JinaEmbeddingsV3Model,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.engine_svc.models import cases
from tests.engine_svc.models.cases import Reference, randomize, save
from tests.engine_svc.models.cases_of import jina_bert, jina_roberta, nomic_bert
from tests.engine_svc.models.published_checkpoints import HEADS_NAMES, HIDDEN_NAMES, Json, Published, stated

DECODERS = ("llama", "mistral", "qwen", "gemma")
# Two token types if the config does not say.
BERTS = ("bert", "albert", "electra")


@dataclass(frozen=True)
class Computed:
    tensors: Mapping[str, Tensor]
    reference: Reference


def find_reference(published: Published, config: Json) -> Computed | None:
    """Returns None if transformers has the class."""
    compute = OF_MODEL_TYPE.get(find_code(config))
    return None if compute is None else compute(published, config)


def find_code(config: Mapping[str, Any]) -> str:
    """The model type, or a name for code whose authors use the model type of another architecture."""
    if config.get("position_embedding_type") == "alibi":
        return "jina-bert"
    if config["model_type"] == "xlm-roberta" and "auto_map" in config:
        return "jina-roberta"
    return str(config["model_type"])


def has_types(config: Mapping[str, Any]) -> bool:
    count: int = config.get("type_vocab_size", 2 if config["model_type"] in BERTS else 1)
    return count > 1


def read_dtype(config: Mapping[str, Any]) -> torch.dtype:
    """The data type of the stored weights."""
    dtype: torch.dtype = getattr(torch, config.get("torch_dtype") or config.get("dtype") or "float32")
    return dtype


@torch.no_grad()
def scale_embeddings(model: PreTrainedModel) -> PreTrainedModel:
    """Scales a decoder's embeddings to the size of what its layers add to them. Gemma's code does it itself."""
    model_type = model.config.model_type
    if model_type.startswith(DECODERS) and not model_type.startswith("gemma"):
        embeddings: Any = model.get_input_embeddings()
        embeddings.weight.mul_(model.config.hidden_size**0.5)
    return model


@torch.no_grad()
def draw_stored(model: PreTrainedModel, config: Mapping[str, Any]) -> PreTrainedModel:
    """Draws random weights that the published data type can hold."""
    model = scale_embeddings(randomize(model))
    for parameter in model.parameters():
        parameter.copy_(parameter.to(read_dtype(config)))
    return model


def names_after(write: Callable[[Path], Any]) -> Mapping[str, Tensor]:
    """The tensors that `write` saves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return load_file(Path(folder) / "model.safetensors")


def read_sizes(config: Mapping[str, Any], *names: str) -> Json:
    """The settings with these names, and those that all models have."""
    usual = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    more = ("type_vocab_size", "layer_norm_eps", "pad_token_id", "max_position_embeddings", "hidden_act", "num_labels")
    return {name: config[name] for name in (*usual, *more, *names) if name in config}


def make_gte(published: Published, config: Json) -> Computed:
    """Alibaba's NewModel. Its NTK scaling is a larger base and a linear factor."""
    # Not every version of transformers that can write the others has it.
    from transformers import GteConfig, GteForSequenceClassification, GteModel

    from tests.engine_svc.models.cases_of import gte

    head_dim = config["hidden_size"] // config["num_attention_heads"]
    factor = (config.get("rope_scaling") or {"factor": 1.0})["factor"]
    rope = {"rope_type": "linear", "rope_theta": config["rope_theta"] * factor, "factor": factor ** (2 / head_dim)}
    is_reranker = published.kind is ModelKind.RERANKER
    model_class = GteForSequenceClassification if is_reranker else GteModel
    sizes = read_sizes(config) if is_reranker else {**read_sizes(config), "num_labels": 2}
    model = draw_stored(model_class(GteConfig(**{**sizes, "rope_parameters": rope})), config)

    def write(folder: Path) -> None:
        save(model, folder)
        gte.rename(folder, "new", packed=config["pack_qkv"])

    tensors = dict(names_after(write))
    if "NewForTokenClassification" in config["architectures"]:  # the head of gte-multilingual-base's sparse vectors
        tensors |= {"classifier.weight": torch.ones(1, config["hidden_size"]), "classifier.bias": torch.ones(1)}
    return Computed(tensors, cases.make_reference(model, published.kind, has_types=has_types(config)))


def make_jina_bert(published: Published, config: Json) -> Computed:
    is_later = "qk-post-norm" in config["auto_map"]["AutoModel"]
    shapes = jina_bert.list_shapes(config, is_later=is_later)
    labels, hidden = len(config.get("id2label", {})), config["hidden_size"]
    if published.kind is ModelKind.RERANKER:
        shapes |= {"classifier.weight": [labels, hidden], "classifier.bias": [labels]}
    weights = {name: tensor.to(read_dtype(config)).float() for name, tensor in jina_bert.draw_weights(shapes).items()}
    model = jina_bert.JinaBert(config, weights, is_later=is_later)
    if published.kind is not ModelKind.RERANKER:
        return Computed(weights, model)
    prefixed = {name if name.startswith("classifier") else f"bert.{name}": weights[name] for name in weights}
    return Computed(prefixed, model.logits)


def make_jina_roberta(published: Published, config: Json) -> Computed:
    is_reranker = published.kind is ModelKind.RERANKER
    model_class = JinaEmbeddingsV3ForSequenceClassification if is_reranker else JinaEmbeddingsV3Model
    rope = {"rope_type": "default", "rope_theta": config.get("rotary_emb_base", 10_000.0)}
    model = draw_stored(model_class(JinaEmbeddingsV3Config(**{**read_sizes(config), "rope_parameters": rope})), config)

    def write(folder: Path) -> None:
        save(model, folder)
        if config["position_embedding_type"] == "absolute":
            jina_roberta.learn_positions(folder, model, read_dtype(config))
        if config.get("lora_adaptations"):
            adapters = {"rank": config["lora_rank"], "alpha": config["lora_alpha"], "dtype": read_dtype(config)}
            jina_roberta.add_adapters(folder, model, published.adapter, **adapters)

    return Computed(names_after(write), cases.make_reference(model, published.kind))


def make_nomic(published: Published, config: Json) -> Computed:
    hidden, heads = stated(config, HIDDEN_NAMES), stated(config, HEADS_NAMES)
    settings = NomicBertConfig(
        vocab_size=config["vocab_size"],
        hidden_size=hidden,
        head_dim=hidden // heads,
        num_attention_heads=heads,
        num_hidden_layers=config["n_layer"],
        intermediate_size=config["n_inner"],
        layer_norm_eps=config["layer_norm_epsilon"],
        type_vocab_size=config["type_vocab_size"],
        rope_parameters={"rope_type": "default", "rope_theta": float(config["rotary_emb_base"])},
    )
    model: PreTrainedModel = NomicBertModel(settings)
    if config.get("num_experts"):
        nomic_bert.make_mixture(model, experts=config["num_experts"], chosen=config["moe_top_k"])
        model = draw_stored(model, config)
        nomic_bert.quieten(model)
        tensors: Mapping[str, Tensor] = nomic_bert.hub_tensors(model)
    else:
        model = draw_stored(model, config)
        tensors = names_after(lambda folder: save(model, folder))
    return Computed(tensors, cases.make_reference(model, published.kind, has_types=has_types(config)))


def make_nemotron(published: Published, config: Json) -> Computed:
    """NVIDIA's bidirectional Llama. Its reranker pools before it scores, and divides by a temperature."""
    own = ("model_type", "architectures", "auto_map", "pooling", "temperature", "torch_dtype")
    settings = LlamaConfig(**{name: value for name, value in config.items() if name not in own} | {"is_causal": False})
    settings._attn_implementation = "eager"
    is_reranker = published.kind is ModelKind.RERANKER
    model = draw_stored((LlamaForSequenceClassification if is_reranker else LlamaModel)(settings), config)
    tensors = names_after(lambda folder: save(model, folder))
    if not is_reranker:
        return Computed(tensors, cases.make_reference(model, published.kind))

    def reference(ids: Tensor, types: Tensor) -> Tensor:
        hidden: Tensor = model.base_model(input_ids=ids).last_hidden_state[0]
        logits: Tensor = model.get_parameter("score.weight") @ hidden.mean(0)
        return logits.div(config["temperature"])

    return Computed(tensors, reference)


OF_MODEL_TYPE: Mapping[str, Callable[[Published, Json], Computed]] = {
    "jina-bert": make_jina_bert,
    "jina-roberta": make_jina_roberta,
    "llama_bidirec": make_nemotron,
    "new": make_gte,
    "nomic_bert": make_nomic,
}
