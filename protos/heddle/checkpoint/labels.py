"""The labels of a classifier. Where config.json does not list them, the weights say how many there are.

Called by `checkpoint`, which takes a classifier with one label for a reranker, and by `model_source`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heddle.checkpoint.json_files import CheckpointError, field_of, read_json_if_there
from heddle.checkpoint.weight_files import shapes_in, weight_files

# What transformers assumes where config.json does not say.
LABELS_DEFAULT = 2

HEADS_WITH_LABELS = ("ForSequenceClassification", "ForTokenClassification")

# Names of the last linear of a classifier, by architecture.
LAST_LINEARS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")


def labels_of(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The names of the labels, in the order of their indices. Raises CheckpointError."""
    path = folder / "config.json"
    by_index = field_of(config, "id2label", dict, path)
    if by_index:
        for index in by_index:
            if not index.isdecimal():
                raise CheckpointError(f"{path}: id2label has the index {index!r}, which is not a whole number")
        return tuple(str(by_index[index]) for index in sorted(by_index, key=int))
    count = field_of(config, "num_labels", int, path) or rows_of_head(folder) or LABELS_DEFAULT
    return tuple(f"LABEL_{index}" for index in range(count))


def rows_of_head(folder: Path) -> int | None:
    """The number of labels in the weights, for a config.json that does not state it: transformers would assume two, and
    refuse other weights. None if the weights are missing or pickled, or have more than one possible last linear."""
    try:
        paths = [path for path in weight_files(folder) if path.suffix == ".safetensors"]
        shapes = {name: shape for path in paths for name, shape in shapes_in(path).items()}
    except CheckpointError:  # reported when the weights are loaded
        return None
    rows = [shapes[name][0] for name in LAST_LINEARS if len(shapes.get(name, ())) == 2]
    return rows[0] if len(rows) == 1 else None


def needs_weights_for_labels(folder: Path) -> bool:
    """Whether the folder is that of a classifier whose config.json does not say how many labels there are."""
    config = read_json_if_there(folder / "config.json")
    if config.get("id2label") or config.get("num_labels"):
        return False
    return any(str(name).endswith(HEADS_WITH_LABELS) for name in config.get("architectures") or [])
