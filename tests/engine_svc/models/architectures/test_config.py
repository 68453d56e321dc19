"""What is said of a config that an architecture does not support: one sentence that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.engine_svc.models.cases_of.all import CASES

NOMIC = "nomic_bert embedder, as nomic-embed-text-v1.5, before transformers knew it"
JINA = "jina_embeddings_v3 embedder, as jina-embeddings-v3, no adapter"
MIXTURE = "nomic_bert embedder, as nomic-embed-text-v2-moe"

WRITE = {case.id: case.write for case in CASES}


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
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
def test_config_that_is_not_supported_is_one_sentence(
    tmp_path: Path, case: str, changes: dict[str, Any], message: str
) -> None:
    WRITE[case](tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message) as caught:
        Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=torch.device("cpu"))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
