"""The labels of a classifier, and how many there are where config.json does not say. `heddle.checkpoint` asks for them:
a head with one label is a reranker's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heddle.checkpoint_files import CheckpointError, field_of, read_json_if_there
from heddle.weight_files import shapes_in, weight_files

# What transformers takes a head to have that nothing is said of.
LABELS_DEFAULT = 2

HEADS_WITH_LABELS = ("ForSequenceClassification", "ForTokenClassification")

# What the architectures call the last linear of a classifier.
LAST_LINEARS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")


def labels_of(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """By index."""
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
    """None where the weights leave it open: there are none, they are pickled, or two linears could be the head's last.

    transformers would take two labels, and refuse weights of another number."""
    try:
        paths = [path for path in weight_files(folder) if path.suffix == ".safetensors"]
        shapes = {name: shape for path in paths for name, shape in shapes_in(path).items()}
    except CheckpointError:  # whoever needs the weights will say what is wrong with them
        return None
    rows = [shapes[name][0] for name in LAST_LINEARS if len(shapes.get(name, ())) == 2]
    return rows[0] if len(rows) == 1 else None


def are_in_weights(folder: Path) -> bool:
    """Whether a folder that may lack its weights is a classifier's whose number of labels only they tell."""
    config = read_json_if_there(folder / "config.json")
    if config.get("id2label") or config.get("num_labels"):
        return False
    return any(str(name).endswith(HEADS_WITH_LABELS) for name in config.get("architectures") or [])
