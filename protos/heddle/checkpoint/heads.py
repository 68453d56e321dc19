"""What a checkpoint has on top of the transformer: the labels of a classifier, and the two extra heads of bge-m3.

Called by `checkpoint`, and by `model_source` to decide what to download. `engine_svc.models.heads` runs the heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heddle.checkpoint.json_files import CheckpointError, get_field, read_json_if_exists
from heddle.checkpoint.tokenizer_files import look_up_token_ids
from heddle.checkpoint.weight_files import find_weight_files, read_shapes, unwrap_names

# What transformers assumes if config.json does not say.
DEFAULT_LABELS = 2

HEADS_WITH_LABELS = ("ForSequenceClassification", "ForTokenClassification")

# Names of the last linear layer of a classifier. They differ between architectures.
LAST_LINEARS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")

# The extra heads of bge-m3: as a build saves them, and as its authors do.
SPARSE_FILES = ("sparse_linear.safetensors", "sparse_linear.pt")
COLBERT_FILES = ("colbert_linear.safetensors", "colbert_linear.pt")

# Special tokens have no sparse weight. The spellings are XLM-RoBERTa's, for folders that do not state their own.
UNWEIGHTED_TOKENS = {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def read_labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Returns the names of the labels in the order of their indices. If config.json does not list them, the weights
    tell their number. Raises CheckpointError."""
    path = folder / "config.json"
    by_index = get_field(config, "id2label", dict, path)
    if by_index:
        for index in by_index:
            if not index.isdecimal():
                raise CheckpointError(f"{path}: id2label has the index {index!r}, which is not a whole number")
        return tuple(str(by_index[index]) for index in sorted(by_index, key=int))
    count = get_field(config, "num_labels", int, path) or count_head_rows(folder) or DEFAULT_LABELS
    return tuple(f"LABEL_{index}" for index in range(count))


def count_head_rows(folder: Path) -> int | None:
    """Returns the number of labels in the weights. transformers would assume two labels and reject other weights. None
    if the weights are missing or pickled, or have more than one candidate for the last linear layer."""
    try:
        paths = [path for path in find_weight_files(folder) if path.suffix == ".safetensors"]
        shapes = unwrap_names({name: shape for path in paths for name, shape in read_shapes(path).items()})
    except CheckpointError:  # reported when the weights are loaded
        return None
    rows = [shapes[name][0] for name in LAST_LINEARS if len(shapes.get(name, ())) == 2]
    return rows[0] if len(rows) == 1 else None


def needs_weights_for_labels(folder: Path) -> bool:
    """Whether this is a classifier whose config.json does not state the number of labels."""
    config = read_json_if_exists(folder / "config.json")
    if config.get("id2label") or config.get("num_labels"):
        return False
    return any(str(name).endswith(HEADS_WITH_LABELS) for name in config.get("architectures") or [])


@dataclass(frozen=True, slots=True)
class M3Heads:
    """The extra heads of bge-m3 and similar models (arXiv 2402.03216). One forward pass yields a dense vector, a weight
    for each token (sparse) and a vector for each token (ColBERT)."""

    sparse: Path  # a linear layer with one output
    colbert: Path  # a linear layer as wide as the model
    ids_without_weight: frozenset[int]  # of special tokens

    @classmethod
    def read(cls, folder: Path) -> "M3Heads | None":
        """Returns None for a folder with neither head. Raises CheckpointError, also if only one of them is there."""
        sparse, colbert = find_head(folder, SPARSE_FILES), find_head(folder, COLBERT_FILES)
        if not (sparse.is_file() or colbert.is_file()):
            return None
        for path in (sparse, colbert):
            if not path.is_file():
                raise CheckpointError(f"{path} is missing: a model has both a sparse and a ColBERT head, or neither")
        spellings = {read_special_token(folder, name, default) for name, default in UNWEIGHTED_TOKENS.items()}
        return cls(sparse, colbert, frozenset(look_up_token_ids(folder, spellings).values()))


def find_head(folder: Path, names: Sequence[str]) -> Path:
    """Returns the first of `names` that exists in `folder`, or else the last."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[-1])


def read_special_token(folder: Path, name: str, default: str) -> str:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        stated = read_json_if_exists(folder / file).get(name)
        if stated:
            return str(stated["content"] if isinstance(stated, dict) else stated)
    return default
