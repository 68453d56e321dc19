"""Small checkpoints with random weights, written as transformers writes them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedModel

VOCABULARY_SIZE = 97
POSITIONS = 64

SMALL_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    # Ten times the usual, lest all outputs are much alike.
    "initializer_range": 0.2,
}


def write_bert(
    folder: Path, model_class: type[PreTrainedModel] = BertModel, *, max_shard_size: str = "1GB", **config: Any
) -> PreTrainedModel:
    """Writes config.json and the weights, and returns the model."""
    torch.manual_seed(0)
    model: PreTrainedModel = model_class(BertConfig(**{**SMALL_BERT, **config}))
    model.train(mode=False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer with one word per id."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(VOCABULARY_SIZE - 5))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_old_modules(folder: Path, names: Iterable[str], pooling: dict[str, Any] | None = None) -> None:
    """Writes modules.json as sentence-transformers did before 5.4: Transformer, then Pooling with its settings."""
    listing = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name.rpartition('.')[2]}" if index else "",
            "type": name if "." in name else f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(names)
    ]
    write_json(folder / "modules.json", listing)
    if pooling is not None:
        write_json(folder / "1_Pooling" / "config.json", pooling)
