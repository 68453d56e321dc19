"""A small bge-m3 with random weights, in the files of the hub, and FlagEmbedding's formulas for it, written from its
M3Embedder: the tests compare with these."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import XLMRobertaConfig, XLMRobertaModel

from tests.checkpoints import POSITIONS, write_json, write_old_modules
from tests.engine_svc.models.cases import Array, randomize, save
from tests.small_tokenizers import unigram

SPECIAL = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
IDS_WITHOUT_WEIGHT = {0, 1, 2, 3}


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of one text."""

    dense: Array
    lexical_weights: dict[int, float]  # by token id
    colbert: Array


@dataclass(frozen=True, slots=True)
class SmallM3:
    model: Any
    sparse: torch.nn.Linear
    colbert: torch.nn.Linear

    @torch.inference_mode()
    def vectors_of(self, ids: list[int]) -> Vectors:
        """Special tokens included."""
        positions = torch.arange(2, 2 + len(ids))[None]  # the model's own leave out what has the padding's id
        mask = torch.ones(1, len(ids))
        hidden = self.model(torch.tensor([ids]), attention_mask=mask, position_ids=positions).last_hidden_state
        weights: dict[int, float] = {}
        for weight, token in zip(torch.relu(self.sparse(hidden))[0, :, 0].tolist(), ids, strict=True):
            if token not in IDS_WITHOUT_WEIGHT and weight > weights.get(token, 0):
                weights[token] = weight
        dense = functional.normalize(hidden[:, 0], dim=-1)[0]
        return Vectors(dense.numpy(), weights, functional.normalize(self.colbert(hidden[:, 1:]), dim=-1)[0].numpy())


def write_m3(folder: Path) -> SmallM3:
    tokenizer = unigram()
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=1,
        pad_token_id=1,
    )
    model = save(randomize(XLMRobertaModel(config, add_pooling_layer=False)), folder)
    write_old_modules(folder, ["Transformer", "Pooling", "Normalize"], {"pooling_mode_cls_token": True})
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"model_max_length": POSITIONS})
    write_json(folder / "special_tokens_map.json", SPECIAL)
    torch.manual_seed(0)
    small = SmallM3(model, torch.nn.Linear(32, 1), torch.nn.Linear(32, 32))
    torch.save(small.sparse.state_dict(), folder / "sparse_linear.pt")
    torch.save(small.colbert.state_dict(), folder / "colbert_linear.pt")
    return small


def token_weights(sparse: Array) -> dict[int, float]:
    """Weights by token id, from the engine's entries [2, entries]."""
    ids, weights = np.asarray(sparse)
    return dict(zip(ids.astype(int).tolist(), weights.tolist(), strict=True))
