"""Which decoders attend to the whole text."""

from typing import Any

import pytest

from heddle.checkpoint.causality import is_causal


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
        {"model_type": "mistral", "architectures": ["MistralModel"], "is_causal": None},
        {"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"], "use_bidirectional_attention": False},
        {"model_type": "qwen2", "auto_map": {"AutoModel": "modeling_qwen2.Qwen2Model"}},
        {"model_type": "qwen2", "auto_map": {"AutoModel": None}},
        {"model_type": "llama_bidirec", "is_causal": True},
        {"architectures": ["BigramModel"]},
    ],
)
def test_tokens_attend_to_the_tokens_before_them(config: dict[str, Any]) -> None:
    assert is_causal(config)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "is_causal": False},
        {"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True},
        {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"]},
        {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"]},
        {"model_type": "llama", "architectures": ["LlamaBidirectionalModel"]},
        {"model_type": "qwen3", "architectures": ["Qwen3BidirectionalModel"]},
        {"model_type": "mistral", "architectures": ["MistralBiModel"]},
        {"model_type": "llama", "architectures": ["LlamaEncoderModel"]},
        {
            "model_type": "llama",
            "architectures": ["LlamaModel"],
            "auto_map": {
                "AutoModel": "McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp--modeling_llama_encoder.LlamaEncoderModel"
            },
        },
        {"model_type": "qwen2", "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}},
        {"model_type": "qwen2", "auto_map": {"AutoModel": "dunzhang/stella_en_1.5B_v5--modeling_qwen.Qwen2Model"}},
    ],
)
def test_tokens_attend_to_the_whole_text(config: dict[str, Any]) -> None:
    assert not is_causal(config)
