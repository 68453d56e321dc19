"""Finds the two extra heads of bge-m3 and models like it (arXiv 2402.03216): sparse and ColBERT vectors.

One forward pass of such a model gives a dense vector, a weight for each token (sparse, lexical) and a vector for each
token (ColBERT). `checkpoint` checks here whether a folder has the heads; `engine_svc.models.heads.m3` runs them.
"""

from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint.json_files import CheckpointError, read_json_if_there
from heddle.checkpoint.tokenizer_files import token_ids

SPARSE_FILE = "sparse_linear.pt"
COLBERT_FILE = "colbert_linear.pt"

# Special tokens get no weight. XLM-RoBERTa's spellings, for folders that do not state their own.
WITHOUT_WEIGHT = {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


@dataclass(frozen=True, slots=True)
class M3Heads:
    sparse: Path  # a linear with one output
    colbert: Path  # a linear as wide as the model
    ids_without_weight: frozenset[int]  # of special tokens

    @classmethod
    def read(cls, folder: Path) -> "M3Heads | None":
        """Returns None if the folder has the files of neither head. Raises CheckpointError, also if one is missing."""
        sparse, colbert = folder / SPARSE_FILE, folder / COLBERT_FILE
        if not (sparse.is_file() or colbert.is_file()):
            return None
        for path in (sparse, colbert):
            if not path.is_file():
                raise CheckpointError(f"{path} is missing: the sparse and the ColBERT head of a model go together")
        spellings = {spelling_of(folder, name, default) for name, default in WITHOUT_WEIGHT.items()}
        return cls(sparse, colbert, frozenset(token_ids(folder, spellings).values()))


def spelling_of(folder: Path, name: str, default: str) -> str:
    """The spelling of a special token in this folder."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        stated = read_json_if_there(folder / file).get(name)
        if stated:
            return str(stated["content"] if isinstance(stated, dict) else stated)
    return default
