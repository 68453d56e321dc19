"""Parity cases of the second GTE. transformers' class is the reference for the layout of Alibaba's own code too."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import (
    GteConfig,
    GteForMaskedLM,
    GteForSequenceClassification,
    GteForTokenClassification,
    GteModel,
    PreTrainedModel,
)

from heddle.checkpoint import ModelKind
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE, write_old_modules
from tests.engine_svc.models.cases import Case, Reference, make_case, make_reference, randomize, save
from tests.engine_svc.models.hub_layout import change_config

HEADS = 4

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
}

# Settings of the code on the hub that transformers' class does not have.
HUB: dict[str, Any] = {
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "torch_dtype": "float32",
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}


def case(
    model_class: type[PreTrainedModel], kind: ModelKind, name: str, *, own_names: bool = True, **config: Any
) -> Case:
    """The layout of transformers, with its own names of tensors or the authors'."""
    return make_case(model_class, kind, name, {**SMALL, **config}, save_original_format=not own_names)


def hub_case(
    model_class: type[PreTrainedModel],
    kind: ModelKind,
    name: str,
    *,
    model_type: str = "new",
    ntk: float | None = None,
    packed: bool = True,
    has_types: bool = False,
    **config: Any,
) -> Case:
    """The layout of Alibaba and Snowflake. Token types are all 0 if the config has only one."""

    def write(folder: Path) -> Reference:
        if kind is ModelKind.SPARSE_EMBEDDER:
            write_old_modules(folder, ["MLMTransformer", "SpladePooling"])
        theta, factor = 10_000.0, ntk or 1.0
        head_dim = SMALL["hidden_size"] // HEADS
        rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / head_dim)}
        model = save(randomize(model_class(GteConfig(**{**SMALL, **config}, rope_parameters=rope))), folder)
        changes = {
            "model_type": model_type,
            "architectures": [model_class.__name__.replace("Gte", "New" if model_type == "new" else "Gte")],
            "rope_theta": theta,
            "rope_scaling": {"factor": ntk, "type": "ntk"} if ntk else None,
            "pack_qkv": packed,
        }
        change_config(folder, without=("rope_parameters", "dtype"), **{**HUB, **changes})
        rename(folder, model_type, packed=packed)
        return make_reference(model, kind, has_types=has_types and model.config.type_vocab_size > 1)

    return Case("new" if model_type == "new" else "gte", name, kind, write, has_types=has_types)


def rename(folder: Path, model_type: str, *, packed: bool) -> None:
    """Makes tensor names the authors'. transformers writes all of them but the prefix."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("gte.")
        new_name = f"{model_type}.{bare}" if bare != name or bare.startswith(("embeddings", "encoder")) else name
        if "qkv_proj" in new_name and not packed:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[new_name.replace("qkv_proj", f"{part}_proj")] = rows.contiguous()
        else:
            renamed[new_name] = tensor
    save_file(renamed, folder / "model.safetensors")


CASES = [
    hub_case(GteModel, ModelKind.EMBEDDER, "as gte-large-en-v1.5", ntk=2.0, type_vocab_size=2, has_types=True),
    hub_case(GteModel, ModelKind.EMBEDDER, "as gte-base-en-v1.5, without types", ntk=2.0, type_vocab_size=0),
    hub_case(GteModel, ModelKind.EMBEDDER, "as gte-multilingual-base", ntk=8.0, has_types=True),
    hub_case(GteModel, ModelKind.EMBEDDER, "projections one by one", packed=False),
    hub_case(GteModel, ModelKind.EMBEDDER, "as arctic-embed-m-v2.0", model_type="gte"),
    hub_case(
        GteForSequenceClassification, ModelKind.RERANKER, "as gte-multilingual-reranker-base", ntk=8.0, num_labels=1
    ),
    hub_case(GteForTokenClassification, ModelKind.TOKEN_CLASSIFIER, "nine labels", num_labels=9),
    hub_case(GteForMaskedLM, ModelKind.SPARSE_EMBEDDER, "tied"),
    case(GteModel, ModelKind.EMBEDDER, "transformers' names"),
    case(GteModel, ModelKind.EMBEDDER, "transformers' config, the authors' names", own_names=False),
    case(GteForSequenceClassification, ModelKind.CLASSIFIER, "five labels", num_labels=5),
    case(GteForMaskedLM, ModelKind.SPARSE_EMBEDDER, "transformers' names"),
]
