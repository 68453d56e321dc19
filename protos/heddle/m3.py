"""The further heads of bge-m3 and its kin (arXiv 2402.03216), read from the two files that lie beside their weights.

One pass of such a model gives a dense vector, a weight for each token (lexical, sparse) and a vector for each token
(ColBERT). `heddle.checkpoint` asks here whether a folder has them; `engine_svc.models.heads.m3` computes them.
"""

from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint_files import read_json_if_there
from heddle.vocabulary import token_ids

SPARSE_FILE = "sparse_linear.pt"
COLBERT_FILE = "colbert_linear.pt"

# Special tokens, which have no weight, by their spelling in XLM-RoBERTa where the folder does not say another.
WITHOUT_WEIGHT = {"cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


@dataclass(frozen=True, slots=True)
class M3Heads:
    sparse: Path  # a linear with one output
    colbert: Path  # a linear as wide as the model
    ids_without_weight: frozenset[int]  # of special tokens

    @classmethod
    def read(cls, folder: Path) -> "M3Heads | None":
        """None where the folder has not both. Raises CheckpointError."""
        sparse, colbert = folder / SPARSE_FILE, folder / COLBERT_FILE
        if not (sparse.is_file() and colbert.is_file()):
            return None
        spellings = {spelling_of(folder, name, default) for name, default in WITHOUT_WEIGHT.items()}
        return cls(sparse, colbert, frozenset(token_ids(folder, spellings).values()))


def spelling_of(folder: Path, name: str, default: str) -> str:
    """Of a special token."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        stated = read_json_if_there(folder / file).get(name)
        if stated:
            return str(stated["content"] if isinstance(stated, dict) else stated)
    return default
