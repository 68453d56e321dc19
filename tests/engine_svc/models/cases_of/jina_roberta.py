"""Parity cases of Jina's XLM-RoBERTa. transformers' class is the reference for the layout of Jina's own code too, with
the weights that an adapter makes of the stored ones."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3ForSequenceClassification,
    JinaEmbeddingsV3ForTokenClassification,
    JinaEmbeddingsV3Model,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE
from tests.engine_svc.models.cases import Case, Reference, make_case, make_reference, randomize, rename_tensor, save
from tests.engine_svc.models.hub_layout import change_config

ADAPTERS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
RANK, ALPHA = 4, 2
PAD = 1

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS + PAD + 1,
    "pad_token_id": PAD,
}

# Settings of the code on the hub that transformers' class does not have.
HUB: dict[str, Any] = {
    "architectures": ["XLMRobertaModel"],
    "emb_pooler": "mean",
    "load_trained_adapters": False,
    "lora_adaptations": None,
    "lora_alpha": 1,
    "lora_dropout_p": 0.0,
    "lora_rank": 4,
    "model_type": "xlm-roberta",
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "torch_dtype": "bfloat16",
    "use_flash_attn": True,
}


# Tensors by Jina's names, and by those of transformers.
NAMES = (
    ("emb_ln", "embeddings.LayerNorm"),
    ("encoder.layers", "layers"),
    ("mixer.out_proj", "self_attn.o_proj"),
    ("norm1", "post_attention_layernorm"),
    ("norm2", "post_mlp_layernorm"),
)


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, *, own_names: bool, **config: Any) -> Case:
    """The layout of transformers, with its own names of tensors or the authors'."""
    return make_case(model_class, kind, name, {**SMALL, **config}, save_original_format=not own_names)


def hub_case(
    model_class: type[PreTrainedModel],
    kind: ModelKind,
    name: str,
    *,
    adapter: str | None = None,
    learned_positions: bool = False,
    states_base: bool = True,
    **config: Any,
) -> Case:
    """The layout of Jina, whose model_type is xlm-roberta. `adapter` is None for a checkpoint without adapters."""

    def write(folder: Path) -> Reference:
        model = randomize(model_class(JinaEmbeddingsV3Config(**{**SMALL, **config})))
        save(model, folder)
        changes: dict[str, Any] = {}
        if adapter is not None:
            changes = {"load_trained_adapters": True, "lora_adaptations": ADAPTERS, "lora_alpha": ALPHA}
            add_adapters(folder, model, adapter)
        if learned_positions:
            changes = {"position_embedding_type": "absolute", "rotary_emb_base": 10000.0}
            learn_positions(folder, model)
        if not states_base:
            changes["rotary_emb_base"] = None
        architecture = model_class.__name__.replace("JinaEmbeddingsV3", "XLMRoberta")
        # null counts as absent
        own = dict.fromkeys(("rope_parameters", "dtype"))
        change_config(folder, **{**own, **HUB, **changes, "architectures": [architecture]})
        return make_reference(model, kind)

    return Case("jina_embeddings_v3", name, kind, write, has_types=True, adapter=adapter or "")


def add_adapters(
    folder: Path,
    model: PreTrainedModel,
    adapter: str,
    *,
    rank: int = RANK,
    alpha: float = ALPHA,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Adds adapters to every table and linear, but not to norms and biases, in the form of torch's parametrizations.
    Merges this adapter into the model. `dtype` must be able to hold the numbers."""
    generator = torch.Generator().manual_seed(1)
    stored = {}
    adapted = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if weight.ndim != 2:
            stored[f"roberta.{name}"] = adapted[name] = weight
            continue
        rows, columns = weight.shape
        first = torch.randn(len(ADAPTERS), rows, rank, generator=generator).div(rank).to(dtype).float()
        second = torch.randn(len(ADAPTERS), rank, columns, generator=generator).div(columns**0.5).to(dtype).float()
        letters = "AB" if name.startswith("embeddings.") else "BA"
        where = f"roberta.{name.removesuffix('.weight')}.parametrizations.weight"
        stored |= {
            f"{where}.original": weight,
            f"{where}.0.lora_{letters[0]}": first,
            f"{where}.0.lora_{letters[1]}": second,
        }
        index = ADAPTERS.index(adapter) if adapter else None
        adapted[name] = weight if index is None else weight + first[index] @ second[index] * (alpha / rank)
    save_file(stored, folder / "model.safetensors")
    load_adapted(model, adapted)


def load_adapted(model: PreTrainedModel, adapted: dict[str, Tensor]) -> None:
    """Loads weights with Jina's names of tensors."""
    weights: dict[str, Tensor] = {}
    for name, tensor in adapted.items():
        if "mixer.Wqkv" in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            projections = {name.replace("mixer.Wqkv", f"self_attn.{part}_proj"): rows for part, rows in parts}
        else:
            projections = {name: tensor}
        weights |= {rename_tensor(stored, NAMES): rows for stored, rows in projections.items()}
    model.load_state_dict(weights)


def learn_positions(folder: Path, model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> None:
    """Replaces rotary positions, which then rotate by 0, by learned ones. `dtype` must be able to hold the numbers."""
    shape = (model.config.max_position_embeddings, model.config.hidden_size)
    table = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype).float()
    tensors = load_file(folder / "model.safetensors")
    tensors["roberta.embeddings.position_embeddings.weight"] = table
    save_file(tensors, folder / "model.safetensors")
    encoder: Any = model.base_model
    encoder.rotary_emb.inv_freq.zero_()

    def with_positions(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + table[PAD + 1 : PAD + 1 + output.shape[1]]

    encoder.embeddings.word_embeddings.register_forward_hook(with_positions)


CASES = [
    hub_case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, "as jina-embeddings-v3, no adapter", adapter=""),
    hub_case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, "as jina-embeddings-v3, first adapter", adapter=ADAPTERS[0]),
    hub_case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, "as jina-embeddings-v3, last adapter", adapter=ADAPTERS[-1]),
    hub_case(
        JinaEmbeddingsV3Model,
        ModelKind.EMBEDDER,
        "Jina's code, base not stated",
        states_base=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    ),
    hub_case(
        JinaEmbeddingsV3ForSequenceClassification,
        ModelKind.RERANKER,
        "as jina-reranker-v2",
        num_labels=1,
        learned_positions=True,
    ),
    case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, "transformers' names", own_names=True),
    case(JinaEmbeddingsV3Model, ModelKind.EMBEDDER, "transformers' config, the authors' names", own_names=False),
    case(JinaEmbeddingsV3ForSequenceClassification, ModelKind.CLASSIFIER, "five labels", own_names=True, num_labels=5),
    case(
        JinaEmbeddingsV3ForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", own_names=False, num_labels=9
    ),
]
