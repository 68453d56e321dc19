"""Fakes of TensorRT-LLM's decoders, with what our class uses of them. engine_svc.models computes them in float32.

Each layer passes the mask that the real one passes, or none, and its attention uses the mask that it receives.
`load_weights` looks for the names that the real one looks for.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine_svc.backends.tensorrt_llm.support import Api
from engine_svc.models import transformer
from engine_svc.models.architectures import decoder
from engine_svc.models.layout import Layout
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.packed_tokens import PackedTokens
from engine_svc.models.transformer import ResidualStream
from engine_svc.models.weights import Weights
from tests.engine_svc.backends.tensorrt_llm.records import bind_call


class PredefinedAttentionMask(enum.StrEnum):
    CAUSAL = "causal"
    FULL = "full"


@dataclass(frozen=True)
class EngineModelConfig:
    pretrained_config: SimpleNamespace  # its attributes are those of config.json
    folder: Path
    api: Api
    is_generation: bool


@dataclass
class AttentionMetadata:
    seq_lens: Tensor  # int32 [B], on the host
    layout: Layout
    rotations: transformer.Rotations


class Attention(nn.Module):
    def __init__(self, attention: transformer.Attention, api: Api) -> None:
        super().__init__()
        self._attention, self._api = attention, api

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        passed = bind_call(self._api, "Attention.forward", *args, **kwargs)
        mask = passed["attention_mask"]
        is_causal = mask is PredefinedAttentionMask.CAUSAL or mask == "PredefinedAttentionMask.CAUSAL"
        pattern = replace(self._attention.pattern, window_right=0 if is_causal else None)
        metadata = passed["attn_metadata"]
        return replace(self._attention, pattern=pattern)(passed["hidden_states"], metadata.layout, metadata.rotations)


class Layer(nn.Module):
    def __init__(self, layer: transformer.Layer, api: Api, attention_mask: PredefinedAttentionMask | None) -> None:
        super().__init__()
        self.self_attn = Attention(layer.attention, api)
        self._layer, self._passed = layer, {} if attention_mask is None else {"attention_mask": attention_mask}

    def forward(self, stream: ResidualStream, position_ids: Tensor, metadata: AttentionMetadata) -> None:
        def attend(rows: Tensor) -> Tensor:
            output: Tensor = self.self_attn(
                position_ids=position_ids, hidden_states=rows, attn_metadata=metadata, **self._passed
            )
            return output

        self._layer.attention_norms.run(attend, stream)
        self._layer.feed_forward_norms.run(self._layer.feed_forward, stream)


class Decoder(nn.Module):
    """Has its layers before their weights are loaded, as the real one."""

    def __init__(self, config: EngineModelConfig, attention_mask: PredefinedAttentionMask | None) -> None:
        super().__init__()
        self._mask, self._api = attention_mask, config.api
        self.layers = nn.ModuleList(self._wrap_layers(load_fake(config, torch.device("meta"))))

    def fill(self, model: transformer.Transformer) -> None:
        self._model = model
        for layer, filled in zip(self.layers, self._wrap_layers(model), strict=True):
            layer._layer, layer.self_attn._attention = filled._layer, filled.self_attn._attention  # type: ignore[union-attr, assignment]

    def forward(
        self,
        attn_metadata: AttentionMetadata,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You cannot specify both input_ids and inputs_embeds at the same time")
        assert input_ids is not None
        assert position_ids is not None
        tokens = PackedTokens(input_ids, torch.zeros_like(input_ids), position_ids[0], attn_metadata.layout)
        hidden = self._model.embeddings(tokens)
        attn_metadata.rotations = self._model._rotations(tokens, hidden.dtype)
        stream = ResidualStream(hidden)
        for layer in self.layers:
            layer(stream, position_ids, attn_metadata)
        assert self._model.norm is not None
        return self._model.norm(stream.hidden())

    def _wrap_layers(self, model: transformer.Transformer) -> list[Layer]:
        return [Layer(layer, self._api, self._mask) for layer in model.layers]


class DecoderModelForCausalLM(nn.Module):
    """Used only through the subclass that we register: the real one returns logits."""

    passes_mask = False

    def __init__(self, model_config: EngineModelConfig) -> None:
        super().__init__()
        self.model_config = model_config
        self.config = model_config.pretrained_config
        full = PredefinedAttentionMask.CAUSAL if model_config.is_generation else PredefinedAttentionMask.FULL
        self.model = Decoder(model_config, full if self.passes_mask else None)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        passed = bind_call(self.model_config.api, "DecoderModelForCausalLM.load_weights", *args, **kwargs)
        weights: Mapping[str, Tensor] = passed["weights"]
        for name in ("model.embed_tokens.weight", "model.norm.weight"):
            weights[name]
        if not self.config.tie_word_embeddings:
            weights["lm_head.weight"]
        self.model.fill(load_fake(self.model_config, torch.device("cpu"), weights))


class LlamaForCausalLM(DecoderModelForCausalLM):
    passes_mask = True


class MistralForCausalLM(DecoderModelForCausalLM):
    pass


class Qwen2ForCausalLM(DecoderModelForCausalLM):
    pass


class Qwen3ForCausalLM(DecoderModelForCausalLM):
    pass


class Qwen3ForTextEmbedding(Qwen3ForCausalLM):
    pass


def load_fake(
    config: EngineModelConfig, device: torch.device, weights: Mapping[str, Tensor] | None = None
) -> transformer.Transformer:
    """Loads with the config.json in the engine's folder: the real one sees no more of the checkpoint."""
    folder = config.folder
    if weights is not None:
        folder = folder / "loaded"
        folder.mkdir()
        save_file(dict(weights.items()), folder / "model.safetensors")
    values = vars(config.pretrained_config)
    return decoder.load(
        ModelConfig(values, config.folder / "config.json"),
        Weights(folder, dtype=torch.float32, device=device, prefix="model."),
    )


def make_metadata(lengths: list[int]) -> AttentionMetadata:
    seq_lens = torch.tensor(lengths, dtype=torch.int32)
    cu_seqlens = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return AttentionMetadata(seq_lens, Layout.of(lengths, cu_seqlens), {})
