"""In RoBERTa and models like it, positions start after the padding id, so fewer tokens fit than there are positions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    CamembertConfig,
    CamembertModel,
    MPNetConfig,
    MPNetModel,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import Output
from heddle.checkpoint import Checkpoint
from tests.checkpoints import SMALL_BERT, VOCABULARY_SIZE
from tests.engine_svc.models.cases import randomize, save
from tests.sequences import Sequence, packed, run_each

ROWS = 40  # rows of the position table
MODELS: list[tuple[type[PreTrainedModel], type[PretrainedConfig]]] = [
    (RobertaModel, RobertaConfig),
    (XLMRobertaModel, XLMRobertaConfig),
    (CamembertModel, CamembertConfig),
    (MPNetModel, MPNetConfig),
]


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize(("model_class", "config_class"), MODELS)
def test_the_longest_text_that_fits_equals_transformers(
    tmp_path: Path, model_class: type[PreTrainedModel], config_class: type[PretrainedConfig], padding: int
) -> None:
    """transformers counts positions itself, because no id is the padding id."""
    config = config_class(**{**SMALL_BERT, "max_position_embeddings": ROWS, "pad_token_id": padding})
    save(randomize(model_class(config)), tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    checkpoint = Checkpoint.read(tmp_path)
    # MPNet's code always takes padding id 1.
    assert checkpoint.sequence_tokens_max == ROWS - 1 - (1 if model_class is MPNetModel else padding)
    for length in (1, 7, checkpoint.sequence_tokens_max):
        ids = np.random.default_rng(length).integers(5, VOCABULARY_SIZE, length, dtype=np.uint32)
        batch = packed([Sequence(ids.tobytes(), output=Output.TOKEN_VECTORS)])
        (ours,) = run_each(TorchBackend(checkpoint, dtype="float32", device="cpu"), batch)
        with torch.inference_mode():
            theirs = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0]
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    with pytest.raises((IndexError, RuntimeError)), torch.inference_mode():  # one token more has no position
        model(input_ids=torch.full((1, checkpoint.sequence_tokens_max + 1), 5))
