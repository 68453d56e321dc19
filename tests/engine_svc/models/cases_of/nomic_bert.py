"""Parity cases of Nomic-BERT. transformers' class is the reference for the layout of Nomic's own code too; the mixture
of experts, which it does not have, is put into it here."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    NomicBertConfig,
    NomicBertForSequenceClassification,
    NomicBertForTokenClassification,
    NomicBertModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE
from tests.engine_svc.models.cases import Case, Reference, make_case, make_reference, randomize, rename_tensor, save

EXPERTS, CHOSEN = 8, 2

# The choice of experts is discontinuous: if the second and the third are almost equal, bfloat16 may choose the other.
# So experts add little to the hidden states.
LOUDNESS = 0.1

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}

# As nomic-embed-text-v1.5 had it until transformers knew it.
HUB: dict[str, Any] = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 20,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": 32,
    "n_head": 4,
    "n_inner": 48,
    "n_layer": 2,
    "n_positions": POSITIONS,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "torch_dtype": "float32",
    "type_vocab_size": 2,
    "use_rms_norm": False,
    "vocab_size": VOCABULARY_SIZE,
}


# Tensors by the names of transformers, and by Nomic's.
NAMES = (
    ("embeddings.LayerNorm", "emb_ln"),
    ("layers.", "encoder.layers."),
    ("self_attn.o_proj", "attn.out_proj"),
    ("self_attn.", "attn."),
    ("post_attention_layernorm", "norm1"),
    ("post_mlp_layernorm", "norm2"),
    ("mlp.router", "mlp.router.layer"),
    ("mlp.w", "mlp.experts.mlp.w"),
    ("mlp.bias", "mlp.experts.bias"),
)


def case(model_class: type[PreTrainedModel], kind: ModelKind, name: str, *, own_names: bool, **config: Any) -> Case:
    """The layout of transformers, with its own names of tensors or the authors'."""
    config = {**SMALL, **config}
    return make_case(model_class, kind, name, config, has_types=True, save_original_format=not own_names)


def hub_case(name: str, *, scaling: float | None = None, base: float = 1000.0, with_both: bool = False) -> Case:
    """The layout of Nomic. `with_both`: the config has the names of transformers too, as it has since transformers
    knows the model."""

    def write(folder: Path) -> Reference:
        rope = {"rope_type": "default", "rope_theta": base}
        if scaling:
            rope = {**rope, "rope_type": "dynamic", "factor": scaling}
        model = randomize(
            NomicBertModel(NomicBertConfig(**{**SMALL, "max_position_embeddings": 20}, rope_parameters=rope))
        )
        save(model, folder)
        path = folder / "config.json"
        own = json.loads(path.read_text()) if with_both else {}
        changes = {"rotary_scaling_factor": scaling, "rotary_emb_base": base}
        path.write_text(json.dumps({**own, **HUB, **changes}))
        return fresh(model) if scaling else make_reference(model, ModelKind.EMBEDDER, has_types=True)

    return Case("nomic_bert", name, ModelKind.EMBEDDER, write, has_types=True)


def fresh(model: PreTrainedModel) -> Reference:
    """transformers' class remembers the longest text that it has seen. This resets it for each text."""
    compute = make_reference(model, ModelKind.EMBEDDER, has_types=True)

    def reference(ids: Tensor, types: Tensor) -> Tensor:
        model.rotary_emb.__init__(model.config)  # type: ignore[misc]
        return compute(ids, types)

    return reference


class PlainFeedForward(nn.Module):
    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(hidden)))  # type: ignore[no-any-return]


class Mixture(nn.Module):
    """Every expert computes every token; experts that are not chosen have the weight 0."""

    def __init__(self, hidden: int, intermediate: int, *, experts: int, chosen: int) -> None:
        super().__init__()
        self.shape, self.chosen = (experts, intermediate, hidden), chosen
        self.router = nn.Linear(hidden, experts, bias=False)
        self.w1 = nn.Parameter(torch.empty(experts * intermediate, hidden))
        self.w2 = nn.Parameter(torch.empty(experts * intermediate, hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        likely = self.router(hidden).softmax(-1)
        smallest = likely.topk(self.chosen, -1).values[..., -1:]
        shares = torch.where(likely >= smallest, likely, 0.0)
        ups, downs = self.w1.view(self.shape), self.w2.view(self.shape)
        inside = functional.gelu(torch.einsum("bth,eih->btei", hidden, ups))
        return torch.einsum("btei,eih,bte->bth", inside, downs, shares) + self.bias


def write_mixture(folder: Path) -> Reference:
    """Writes the layout of nomic-embed-text-v2-moe: every second layer is a mixture, the others are plain, and all have
    biases."""
    torch.manual_seed(0)
    model = NomicBertModel(
        NomicBertConfig(
            **{
                **SMALL,
                "num_hidden_layers": 4,
                "type_vocab_size": 1,
                "layer_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            }
        )
    )
    make_mixture(model, experts=EXPERTS, chosen=CHOSEN)
    quieten(randomize(model))
    save_file({name: tensor.contiguous() for name, tensor in hub_tensors(model).items()}, folder / "model.safetensors")
    changes = {
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-5,
        "n_layer": 4,
        "moe_every_n_layers": 2,
        "moe_normalize_expert_weights": False,
        "moe_top_k": CHOSEN,
        "num_experts": EXPERTS,
        "num_shared_experts": 0,
        "expert_choice_router": False,
        "pad_token_id": 1,
        "rotary_emb_base": 10000.0,
        "type_vocab_size": 1,
        **dict.fromkeys(("mlp_fc1_bias", "mlp_fc2_bias", "qkv_proj_bias"), True),
    }
    (folder / "config.json").write_text(json.dumps({**HUB, **changes}))
    return make_reference(model, ModelKind.EMBEDDER)


def make_mixture(model: PreTrainedModel, *, experts: int, chosen: int) -> None:
    """Changes the config in place: every second layer is a mixture of experts, and all projections have biases."""
    hidden, intermediate = model.config.hidden_size, model.config.intermediate_size
    layers: Any = model.layers
    for index, layer in enumerate(layers):
        is_mixture = index % 2 == 1
        layer.mlp = (
            Mixture(hidden, intermediate, experts=experts, chosen=chosen)
            if is_mixture
            else PlainFeedForward(hidden, intermediate)
        )
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, nn.Linear(hidden, hidden))


@torch.no_grad()
def quieten(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("mlp.w2"):
            parameter.mul_(LOUDNESS)


def hub_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    weights = model.state_dict()
    fused = {
        name.replace("q_proj", "Wqkv"): torch.cat([weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        for name in weights
        if ".q_proj." in name
    }
    others = {name: tensor for name, tensor in weights.items() if not any(f".{part}_proj." in name for part in "qkv")}
    return {rename_tensor(name, NAMES): tensor for name, tensor in {**fused, **others}.items()}


CASES = [
    hub_case("as nomic-embed-text-v1.5, before transformers knew it"),
    hub_case("as nomic-embed-text-v1.5, the names of both", with_both=True),
    hub_case("as nomic-embed-text-v1.5 asked to scale beyond its training", scaling=2.0),
    hub_case("as CodeRankEmbed, another base", base=10_000.0),
    Case("nomic_bert", "as nomic-embed-text-v2-moe", ModelKind.EMBEDDER, write_mixture, has_types=True),
    case(NomicBertModel, ModelKind.EMBEDDER, "transformers' names", own_names=True),
    case(NomicBertModel, ModelKind.EMBEDDER, "transformers' config, the authors' names", own_names=False),
    case(NomicBertForSequenceClassification, ModelKind.RERANKER, "one label", own_names=False, num_labels=1),
    case(NomicBertForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", own_names=True, num_labels=9),
]
