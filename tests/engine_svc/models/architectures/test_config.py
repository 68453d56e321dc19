"""Errors for a config that an architecture does not support, or that does not fit the weights: one line that names the
file. And which transformer and head a checkpoint gets."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForTokenClassification

from engine_svc.models.architectures.registry import ARCHITECTURES
from heddle.checkpoint import ModelKind
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert
from tests.engine_svc.models.cases import load_model
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.hub_layout import change_config

NOMIC = "nomic_bert embedder, as nomic-embed-text-v1.5, before transformers knew it"
JINA = "jina_embeddings_v3 embedder, as jina-embeddings-v3, no adapter"
MIXTURE = "nomic_bert embedder, as nomic-embed-text-v2-moe"

# Their heads come from the modules, not from the architecture.
EMBEDDERS = (ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)

WRITE = {case.id: case.write for case in CASES}


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("bert embedder, gelu", {"model_type": "mamba"}, "model type mamba is not supported"),
        ("bert embedder, gelu", {"hidden_act": "mish"}, "hidden_act mish is not supported"),
        (
            "bert embedder, gelu",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type relative_key is not supported",
        ),
        ("bert embedder, gelu", {"is_decoder": True}, "is_decoder True is not supported"),
        ("bert embedder, gelu", {"num_attention_heads": 5}, "hidden size 32 is not a multiple"),
        ("bert embedder, gelu", {"num_hidden_layers": None}, "num_hidden_layers is missing, or not a positive number"),
        ("bert embedder, gelu", {"num_hidden_layers": 3}, "no tensor encoder.layer.2"),
        ("bert embedder, gelu", {"intermediate_size": 50}, r"has shape \[48, 32\], expected \[50, 32\]"),
        (
            "bert embedder, gelu",
            {"vocab_size": 98},
            r"word_embeddings.weight has shape \[97, 32\], expected \[98, 32\]",
        ),
        ("bert embedder, gelu", {"quantization_config": {"bits": 4}}, "quantized weights"),
        (
            "roberta embedder, as transformers 5 saves it",
            {"position_embedding_type": "rotary"},
            "rotary is not supported",
        ),
        ("roberta embedder, as transformers 5 saves it", {"hidden_act": "mish"}, "hidden_act mish is not supported"),
        ("distilbert embedder, relu", {"activation": "mish"}, "activation mish is not supported"),
        ("distilbert embedder, relu", {"n_heads": 5}, "hidden size 32 is not a multiple"),
        ("mpnet embedder, as of old", {"relative_attention_num_buckets": 64}, "num_buckets 64 is not supported"),
        ("deberta-v2 embedder, as v3", {"conv_kernel_size": 3}, "conv_kernel_size 3 is not supported"),
        ("deberta-v2 embedder, as v3", {"relative_attention": False}, "relative_attention False is not supported"),
        ("deberta-v2 embedder, as v3", {"relative_attention": None}, "relative_attention False is not supported"),
        ("jina-bert embedder, reglu", {"feed_forward_type": "swiglu"}, "feed_forward_type swiglu is not supported"),
        (
            "jina-bert embedder, the later one, reglu",
            {"feed_forward_type": "original"},
            "type original is not supported",
        ),
        (
            "electra embedder, narrow embeddings, as of small ones",
            {"embedding_size": 24},
            r"\[64, 16\], expected \[64, 24\]",
        ),
        ("modernbert embedder, as gte-modernbert-base", {"layer_types": ["full_attention"]}, "layer_types .* is not"),
        ("modernbert embedder, as gte-modernbert-base", {"layer_types": ["linear"] * 4}, "layer_types .* is not"),
        (
            "modernbert embedder, as gte-modernbert-base",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
            "rope_parameters are not by layer type",
        ),
        ("modernbert classifier, five labels, first token", {"classifier_pooling": "max"}, "classifier_pooling max is"),
        ("modernbert sparse embedder, tied", {"decoder_bias": False}, "decoder_bias False is not supported"),
        ("new embedder, as gte-large-en-v1.5", {"position_embedding_type": "absolute"}, "position_embedding_type abs"),
        ("new embedder, as gte-large-en-v1.5", {"layer_norm_type": "rms_norm"}, "layer_norm_type rms_norm is not"),
        ("new embedder, as gte-large-en-v1.5", {"logn_attention_scale": True}, "logn_attention_scale True is not"),
        (
            "new embedder, as gte-large-en-v1.5",
            {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.75}},
            "ntk with mixed_b is not supported",
        ),
        (NOMIC, {"prenorm": True}, "prenorm True is not"),
        (NOMIC, {"causal": True}, "causal True is not"),
        (NOMIC, {"rotary_emb_interleaved": True}, "rotary_emb_interleaved True"),
        (NOMIC, {"rotary_emb_fraction": 0.0}, "rotary_emb_fraction 0.0 is not"),
        (NOMIC, {"activation_function": "glu"}, "hidden_act glu is not"),
        (JINA, {"position_embedding_type": "alibi"}, "position_embedding_type alibi is not supported"),
        (JINA, {"lora_rank": 3}, r"word_embeddings.*lora_A has shape \[5, 97, 4\], expected \[5, 97, 3\]"),
        (MIXTURE, {"moe_normalize_expert_weights": True}, "moe_normalize_expert_weights True is not"),
        (MIXTURE, {"num_shared_experts": 1}, "num_shared_experts 1 is not supported"),
        (MIXTURE, {"num_experts": None}, "num_experts is missing"),
    ],
)
def test_config_that_does_not_fit_is_one_line(tmp_path: Path, case: str, changes: dict[str, Any], message: str) -> None:
    WRITE[case](tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kind_that_an_architecture_has_no_head_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "bert", dataclasses.replace(ARCHITECTURES["bert"], heads={}))
    write_bert(tmp_path, BertForTokenClassification)
    with pytest.raises(CheckpointError, match="a bert as a token classifier is not supported"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ModelKind)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet"])
def test_encoder_has_a_head_for_every_kind(model_type: str, kind: ModelKind) -> None:
    assert kind in EMBEDDERS or kind in ARCHITECTURES[model_type].heads
