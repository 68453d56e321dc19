"""Which transformer and head a checkpoint gets."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import BertForTokenClassification

from engine_svc.models.architectures.table import ARCHITECTURES
from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert

# Their heads come from the modules, not from the architecture.
EMBEDDERS = (ModelKind.EMBEDDER, ModelKind.MULTI_VECTOR_EMBEDDER)


def test_kind_that_an_architecture_has_no_head_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "bert", dataclasses.replace(ARCHITECTURES["bert"], heads={}))
    write_bert(tmp_path, BertForTokenClassification)
    with pytest.raises(CheckpointError, match="a bert as a token classifier is not supported"):
        Model.load(Checkpoint.read(tmp_path), dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ModelKind)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet"])
def test_encoder_has_a_head_for_every_kind(model_type: str, kind: ModelKind) -> None:
    assert kind in EMBEDDERS or kind in ARCHITECTURES[model_type].heads
