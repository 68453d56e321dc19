"""The folder that TensorRT-LLM is given for a checkpoint: a config.json made for it, and links to the weights.

Its own settings could name another class, in some versions. This holds for all of them, and for what else they read
differently: model types of code that a checkpoint brings, the notation of transformers 5, and a head that a bare model
lacks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine_svc.backends.tensorrt_llm.fitness import MODEL_TYPES
from engine_svc.backends.tensorrt_llm.quantization import FILE, quantization_of
from engine_svc.models.model_config import ModelConfig
from engine_svc.models.rope_scaling import rope_parameters
from heddle.checkpoint import Checkpoint
from heddle.weight_files import weight_files

# TensorRT-LLM's list of architectures that do not generate has this name, and it has no class of that name: so ours
# runs without a cache of keys and values.
ARCHITECTURE = "LlamaForTextEmbedding"

# Of no use to it, or in a notation that only some versions read.
LEFT_OUT = frozenset({"auto_map", "dtype", "layer_types", "quantization_config", "rope_parameters"})


def write_engine_folder(folder: Path, checkpoint: Checkpoint, data_type: str) -> None:
    """`data_type` is bfloat16 or float16. Raises CheckpointError."""
    (folder / "config.json").write_text(json.dumps(engine_config(checkpoint, data_type)))
    quantization = quantization_of(checkpoint)
    if quantization is not None:
        (folder / FILE).write_text(json.dumps(quantization.described))
    for path in weight_files(checkpoint.folder):
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
        # No sequence reaches beyond the windows of what passes check_fitness.
        "sliding_window": None,
        "use_sliding_window": False,
        # Nothing is loaded for the head of a language model, which is not used.
        "tie_word_embeddings": True,
    }
