"""Parity cases of Llama, Mistral and Qwen, causal and not."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma2ForCausalLM,
    GemmaForCausalLM,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    MistralForCausalLM,
    MistralModel,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)

from heddle.checkpoint import ModelKind
from heddle.checkpoint.language_models import LANGUAGE_MODEL
from tests.checkpoints import POSITIONS, VOCABULARY_SIZE, write_json, write_old_modules
from tests.engine_svc.models.cases import Case, Reference, make_reference, randomize, save
from tests.engine_svc.models.hub_layout import as_transformers_4, change_config, rename_tensors

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
BIASED: dict[str, Any] = {"attention_bias": True, "mlp_bias": True, "head_dim": 16}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 16}


def case(
    model_class: type[PreTrainedModel],
    name: str,
    kind: ModelKind = ModelKind.EMBEDDER,
    *finish: Callable[[Path], None],
    **config: Any,
) -> Case:
    """`finish` makes the folder more like the real ones."""

    def write(folder: Path) -> Reference:
        model = save(small(model_class, **config), folder)
        if kind is ModelKind.EMBEDDER and model_class.__name__.endswith(LANGUAGE_MODEL):
            write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_lasttoken": True})
        for step in finish:
            step(folder)
        return make_reference(model, kind)

    return Case(read_model_type(model_class), name, kind, write)


def read_model_type(model_class: type[PreTrainedModel]) -> str:
    config_class = model_class.config_class
    assert config_class is not None
    return str(config_class.model_type)


def small(model_class: type[PreTrainedModel], **config: Any) -> PreTrainedModel:
    config_class = model_class.config_class
    assert config_class is not None
    if config_class is Qwen3Config:
        config = {"head_dim": 16, **config}
    settings = config_class(**{**SMALL, **config})
    settings._attn_implementation = "eager"  # the one that applies every mask as it is written
    return with_large_embeddings(randomize(model_class(settings)))


@torch.no_grad()
def with_large_embeddings(model: PreTrainedModel) -> PreTrainedModel:
    """Scales the embeddings to the size of what each layer adds to them, as Gemma does. Small ones would vanish in the
    rounding of the first layer: bfloat16 would be wrong by several percent, in transformers too."""
    embeddings: Any = model.get_input_embeddings()
    if not model.config.model_type.startswith("gemma"):
        embeddings.weight.mul_(SMALL["hidden_size"] ** 0.5)
    return model


def bare_names(folder: Path) -> None:
    """Makes the names those of Qwen3-Embedding: the config is that of a causal language model, but the file has no
    prefix and no head."""
    rename_tensors(folder, lambda name: None if name.startswith("lm_head") else name.removeprefix("model."))


def nemotron(folder: Path, architecture: str = "LlamaBidirectionalModel", **config: Any) -> None:
    """The layout of NVIDIA's own code."""
    names = {"model_type": "llama_bidirec", "architectures": [architecture], "pooling": "avg"}
    change_config(folder, without=("is_causal",), **names, **config)


def gte_qwen2(folder: Path) -> None:
    """Writes the config from before it had is_causal."""
    code = {"AutoModel": "modeling_qwen.Qwen2Model", "AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM"}
    change_config(folder, without=("is_causal",), auto_map=code)


def write_nemotron_reranker(folder: Path) -> Reference:
    """Its head pools before it scores, unlike transformers' own, and divides by a temperature."""
    model = save(small(LlamaForSequenceClassification, num_labels=1, is_causal=False), folder)
    nemotron(folder, "LlamaBidirectionalForSequenceClassification", temperature=0.5)
    score = model.get_parameter("score.weight")

    def reference(ids: Tensor, types: Tensor) -> Tensor:
        hidden: Tensor = model.base_model(input_ids=ids).last_hidden_state[0]
        return score @ hidden.mean(0) / 0.5

    return reference


def logit_score(architecture: type[PreTrainedModel], true_id: int, false_id: int | None, **config: Any) -> Case:
    """A language model that says yes or no, with sentence-transformers' module for it."""

    def write(folder: Path) -> Reference:
        model = save(small(architecture, **config), folder)
        write_old_modules(folder, ["Transformer", "LogitScore"])
        ids = {"true_token_id": true_id, "false_token_id": false_id}
        write_json(folder / "1_LogitScore" / "config.json", ids)

        def reference(ids: Tensor, types: Tensor) -> Tensor:
            logits = model(input_ids=ids).logits[0, -1]
            return logits[true_id, None] - (0 if false_id is None else logits[false_id, None])  # type: ignore[no-any-return]

        return reference

    return Case(read_model_type(architecture), "logits of yes and no", ModelKind.RERANKER, write)


def published_reranker(
    architecture: type[PreTrainedModel], name: str, tokens: Mapping[str, int], **config: Any
) -> Case:
    """A bare language model, as rerankers are published, without a module for the score. `tokens` are the score tokens;
    the first means yes."""

    def write(folder: Path) -> Reference:
        model = save(small(architecture, **config), folder)
        change_config(folder, _name_or_path=name)
        write_json(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": tokens}, "added_tokens": []})
        true_id, *false_id = tokens.values()

        def reference(ids: Tensor, types: Tensor) -> Tensor:
            logits: Tensor = model(input_ids=ids).logits[0, -1]
            return logits[[true_id]] - (logits[false_id] if false_id else 0)

        return reference

    return Case(read_model_type(architecture), f"{name} as published", ModelKind.RERANKER, write)


CLASSIFIER, RERANKER, TOKENS = ModelKind.CLASSIFIER, ModelKind.RERANKER, ModelKind.TOKEN_CLASSIFIER
EMBEDDER = ModelKind.EMBEDDER

CASES = [
    case(LlamaModel, "llama 3 rope", rope_parameters=LLAMA3),
    case(LlamaForCausalLM, "biased, wide heads", EMBEDDER, as_transformers_4, **BIASED, rope_parameters=LLAMA3),
    case(LlamaForSequenceClassification, "reward", RERANKER, num_labels=1),
    case(LlamaForTokenClassification, "nine labels", TOKENS, num_labels=9),
    replace(
        case(LlamaModel, "nemotron", EMBEDDER, nemotron, is_causal=False, rope_parameters=LLAMA3),
        architecture="llama_bidirec",
    ),
    Case("llama_bidirec", "nemotron", RERANKER, write_nemotron_reranker),
    case(MistralModel, "window", EMBEDDER, as_transformers_4, sliding_window=8),
    case(MistralForCausalLM, "no window", sliding_window=None),
    case(MistralModel, "window to both sides", sliding_window=8, is_causal=False),
    case(Qwen2ForCausalLM, "tied", tie_word_embeddings=True, use_sliding_window=False, sliding_window=8),
    case(Qwen2Model, "later layers with a window", use_sliding_window=True, sliding_window=8, max_window_layers=1),
    case(Qwen2ForCausalLM, "gte", EMBEDDER, as_transformers_4, gte_qwen2, is_causal=False),
    case(Qwen2ForSequenceClassification, "three labels", CLASSIFIER, as_transformers_4, num_labels=3),
    case(Qwen2ForTokenClassification, "no bias", TOKENS, num_labels=9, token_classification_bias=False),
    case(Qwen3ForCausalLM, "Qwen3-Embedding", EMBEDDER, bare_names, as_transformers_4, tie_word_embeddings=True),
    case(Qwen3Model, "yarn", rope_parameters=YARN, is_causal=False),
    case(Qwen3ForCausalLM, "yarn, as transformers 4 wrote it", EMBEDDER, as_transformers_4, rope_parameters=YARN),
    case(Qwen3ForSequenceClassification, "Qwen3-Reranker", RERANKER, num_labels=1, tie_word_embeddings=True),
    logit_score(Qwen3ForCausalLM, 17, 3, tie_word_embeddings=True),
    logit_score(Qwen2ForCausalLM, 5, 90),
    logit_score(GemmaForCausalLM, 11, None),
    logit_score(Gemma2ForCausalLM, 11, 12, final_logit_softcapping=2.0),
    published_reranker(Qwen3ForCausalLM, "Qwen/Qwen3-Reranker-0.6B", {"yes": 17, "no": 3}, tie_word_embeddings=True),
    published_reranker(Qwen2ForCausalLM, "mixedbread-ai/mxbai-rerank-base-v2", {"1": 16, "0": 15}),
    published_reranker(GemmaForCausalLM, "BAAI/bge-reranker-v2-gemma", {"Yes": 11}),
]
