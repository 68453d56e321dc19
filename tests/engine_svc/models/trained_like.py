"""Small decoders with random weights that quantization changes as it changes trained ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
)

from tests.engine_svc.models.cases_of.decoders import SMALL

# Larger than a parity case, so that widths are not all of one block.
SIZES: dict[str, Any] = {**SMALL, "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256}
DECODERS: Sequence[tuple[type[PreTrainedModel], type[PreTrainedConfig]]] = (
    (LlamaModel, LlamaConfig),
    (MistralModel, MistralConfig),
    (Qwen3Model, Qwen3Config),
    (Gemma2Model, Gemma2Config),
)


def write_decoder(folder: Path, made_of: tuple[type[PreTrainedModel], type[PreTrainedConfig]]) -> PreTrainedModel:
    """Each layer changes the hidden states by a little, as in a trained model and not in other random ones."""
    model_class, config_class = made_of
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, "head_dim": 32}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=1.0 if "embed" in name else parameter.shape[1] ** -0.5)
            if "o_proj" in name or "down_proj" in name:
                parameter.data *= (2 * SIZES["num_hidden_layers"]) ** -0.5
    model.save_pretrained(folder)
    return model
