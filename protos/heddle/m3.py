"""Finds the two extra heads of bge-m3 and models like it (arXiv 2402.03216): sparse and ColBERT vectors.

One forward pass of such a model gives a dense vector, a weight for each token (sparse, lexical) and a vector for each
token (ColBERT). `heddle.checkpoint` checks here whether a folder has the heads; `engine_svc.models.heads.m3` runs them.
"""

from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint_files import read_json_if_there
from heddle.vocabulary import token_ids

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
        """Returns None unless the folder has the files of both heads. Raises CheckpointError."""
        sparse, colbert = folder / SPARSE_FILE, folder / COLBERT_FILE
        if not (sparse.is_file() and colbert.is_file()):
            return None
        spellings = {spelling_of(folder, name, default) for name, default in WITHOUT_WEIGHT.items()}
        return cls(sparse, colbert, frozenset(token_ids(folder, spellings).values()))


def spelling_of(folder: Path, name: str, default: str) -> str:
    """The spelling of a special token in this folder."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        stated = read_json_if_there(folder / file).get(name)
        if stated:
            return str(stated["content"] if isinstance(stated, dict) else stated)
    return default
