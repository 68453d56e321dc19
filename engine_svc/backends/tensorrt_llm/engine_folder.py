"""Writes the folder that TensorRT-LLM loads in place of a checkpoint: our own config.json, and links to the weights.

Our config.json names the class to build. It also replaces what some versions of TensorRT-LLM cannot read: the model
type of a checkpoint with code of its own, the notation of transformers 5, and a missing language model head.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine_svc.backends.tensorrt_llm.fitness import MODEL_TYPES
from engine_svc.backends.tensorrt_llm.quantization import quantization_of
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.quantization import FILE
from engine_svc.models.rope_scaling import rope_parameters
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.weight_files import find_weight_files

# TensorRT-LLM lists this name among the architectures that do not generate, and has no class of that name. A class that
# we register under it runs without a KV cache.
ARCHITECTURE = "LlamaForTextEmbedding"

# TensorRT-LLM does not need these, or only some versions can read them.
LEFT_OUT = frozenset({"auto_map", "dtype", "layer_types", "quantization_config", "rope_parameters"})


def write_engine_folder(folder: Path, checkpoint: Checkpoint, data_type: str) -> None:
    """`data_type` is bfloat16 or float16. Raises CheckpointError."""
    (folder / "config.json").write_text(json.dumps(engine_config(checkpoint, data_type)))
    quantization = quantization_of(checkpoint)
    if quantization is not None:
        (folder / FILE).write_text(json.dumps(quantization.described))
    for path in find_weight_files(checkpoint.folder):
        (folder / path.name).symlink_to(path.resolve())


def engine_config(checkpoint: Checkpoint, data_type: str) -> Mapping[str, Any]:
    config = ModelConfig.of(checkpoint)
    stated = dict(rope_parameters(config))
    base, scaling = stated.pop("rope_theta"), {**stated, "rope_type": stated.get("rope_type") or stated.get("type")}
    return {
        **{name: value for name, value in config.values.items() if name not in LEFT_OUT},
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPES[config.get("model_type")],
        "torch_dtype": data_type,
        "rope_theta": base,
        "rope_scaling": None if scaling["rope_type"] in (None, "default") else scaling,
        # check_fitness refuses checkpoints with sequences longer than a window.
        "sliding_window": None,
        "use_sliding_window": False,
        # The language model head is not used; tied, it needs no weights.
        "tie_word_embeddings": True,
    }
