"""Small checkpoints with random weights: which of the parity cases TensorRT-LLM serves, and further ones."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tests.checkpoints import write_old_modules
from tests.engine_svc.models.cases import Case, saved
from tests.engine_svc.models.cases_of.decoders import CASES, small

# Torch serves checkpoints with a window or another rotary scaling, and Gemma.
LEFT_TO_TORCH = (
    "window",
    "window to both sides",
    "later layers with a window",
    "yarn",
    "yarn, as transformers 4 wrote it",
)

SERVED: list[Case] = [
    case for case in CASES if not case.architecture.startswith("gemma") and case.name not in LEFT_TO_TORCH
]
UNSERVED: list[Case] = [case for case in CASES if case not in SERVED]


def written(folder: Path, model_class: type[PreTrainedModel], **config: Any) -> Path:
    """An embedder that pools by the mean."""
    if model_class.__name__.startswith("Mistral"):
        config = {"sliding_window": None, **config}
    saved(small(model_class, **config), folder)
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
    return folder
