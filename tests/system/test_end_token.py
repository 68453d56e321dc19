"""The setting of the end token decides which token's vector a small model like e5-mistral returns."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MistralConfig, MistralModel

from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint
from heddle.client import Client
from heddle.v1 import inference_pb2 as pb
from tests.checkpoints import write_json, write_old_modules
from tests.cluster import engine_pod, tokenizer_pod
from tests.small_vocabularies import write_vocabulary

BEGIN, END = 1, 2  # ids of <s> and </s>
TEXTS = ["the quick fox", "Hello World", "a"]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}


def write_e5_mistral(folder: Path) -> MistralModel:
    write_vocabulary(folder, "LlamaTokenizer", {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True})
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, vocab_size=2000, max_position_embeddings=64, initializer_range=0.2)
    model = MistralModel(config)
    model.train(mode=False)
    model.save_pretrained(folder)
    stated = {**config.to_dict(), "architectures": ["MistralModel"], "transformers_version": "4.34.0"}
    write_json(folder / "config.json", stated)
    write_old_modules(folder, ["Transformer", "Pooling", "Normalize"], POOLING)
    return model


async def test_the_end_token_is_pooled(tmp_path: Path) -> None:
    reference = write_e5_mistral(tmp_path / "model")
    model = str(tmp_path / "model")
    backend = TorchBackend(Checkpoint.read(tmp_path / "model"), dtype="float32")
    async with (
        engine_pod(tmp_path, backend, model=model) as engine,
        tokenizer_pod(tmp_path, engine, model=model) as address,
        Client(address) as client,
    ):
        tokenized = await client.tokenize(pb.TokenizeRequest(inputs=TEXTS))
        vectors = await client.vectors(TEXTS)
    for tokens, vector in zip(tokenized.results, vectors, strict=True):
        ids = [token.id for token in tokens.tokens]
        assert (ids[0], ids[-1]) == (BEGIN, END)
        with torch.no_grad():
            last = reference(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
        assert np.allclose(vector, last / np.linalg.norm(last), atol=1e-5)
