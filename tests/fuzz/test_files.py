"""Files of operators and hubs, with any content, are read or refused with a documented error."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from engine_svc.models.stored_tensors import open_safetensors
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.damaged_files import explain_safetensors
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.tokenizer_files import look_up_token_ids
from heddle.checkpoint.weight_files import read_shapes
from heddle.config.loading import ConfigFileError, load_config
from heddle.config.translation import translate
from heddle.rpc.keys import ApiKeys
from heddle.rpc.settings import ConfigurationError
from tests.fuzz.strategies import BOUNDED, bytes_near, encode_json, json_near
from tests.small_tokenizers import BUILDERS, small_tokenizer
from tokenizer_svc.text.tokenizer import Tokenizer

CONFIG = b"""\
model_name: BEI
resources: {accelerator: L4, use_gpu: true}
environment_variables: {HEDDLE_ENGINE_DTYPE: float32}
secrets: {hf_access_token: null}
trt_llm:
  build:
    base_model: encoder_bert
    checkpoint_repository: {repo: BAAI/bge-m3, source: HF, revision: main}
    max_num_tokens: 16384
    quantization_type: no_quant
  runtime: {webserver_default_route: /v1/embeddings, kv_cache_free_gpu_mem_fraction: 0.5}
"""
# Ten aliases of ten aliases, and so on.
ALIASES = b"a0: &a0 [x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (depth, depth, b", ".join([b"*a%d" % (depth - 1)] * 10)) for depth in range(1, 12)
)
DEEP = b"[" * 2000

KEYS = b"# callers\nsearch 1234567890abcdef 2\nbatch sha256:" + b"0f" * 32 + b"\n"

BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 8,
    "max_position_embeddings": 32,
    "vocab_size": 200,
    "id2label": {"0": "yes", "1": "no"},
    "label2id": {"yes": 0, "no": 1},
    "problem_type": None,
    "torch_dtype": "float32",
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]
POOLING = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "include_prompt": False}
DENSE = {"in_features": 8, "out_features": 4, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
PROMPTS = {"prompts": {"query": "q: "}, "default_prompt_name": "query", "similarity_fn_name": "cosine"}
TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "model_max_length": 32,
    "do_lower_case": True,
    "added_tokens_decoder": {"5": {"content": "[NEW]", "special": True, "lstrip": False}},
    "additional_special_tokens": ["[X]"],
    "eos_token": {"content": "</s>"},
    "add_eos_token": True,
    "truncation_side": "left",
    "transformers_version": "4.1",
}


@contextmanager
def folder_with(**files: bytes) -> Iterator[Path]:
    """`__` in a name stands for a point, and `___` for a slash."""
    folder = Path(tempfile.mkdtemp(prefix="heddle-fuzz-"))
    try:
        for name, content in files.items():
            path = folder / name.replace("___", "/").replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        yield folder
    finally:
        shutil.rmtree(folder)


@given(bytes_near(CONFIG))
@BOUNDED
@example(ALIASES)
@example(DEEP)
@example(CONFIG + ALIASES)
def test_config_yaml(content: bytes) -> None:
    with folder_with(config__yaml=content) as folder, suppress(ConfigFileError):
        translate(load_config(folder / "config.yaml").config, folder, gpus=1)


@given(bytes_near(KEYS))
@BOUNDED
def test_keys_files(content: bytes) -> None:
    with folder_with(keys=content) as folder, suppress(ConfigurationError):
        assert ApiKeys.load((), folder / "keys")


@cache
def safetensors() -> bytes:
    return save({"weight": torch.zeros(2, 3), "bias": torch.zeros(3, dtype=torch.float16)}, {"format": "pt"})


def header(content: Any) -> bytes:
    data = encode_json(content)
    return len(data).to_bytes(8, "little") + data + bytes(64)


HEADER = {"__metadata__": {"format": "pt"}, "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


@given(st.deferred(lambda: bytes_near(safetensors())) | json_near(HEADER, ("dtype", "shape")).map(header))
@BOUNDED
@example((10_000).to_bytes(8, "little") + b"[" * 10_000)
@example(header({"weight": [1]}))
def test_safetensors(content: bytes) -> None:
    with folder_with(model__safetensors=content) as folder:
        path = folder / "model.safetensors"
        explain_safetensors(path)
        for read in (read_shapes, open_safetensors):
            with suppress(CheckpointError):
                read(path)


@given(
    json_near(BERT),
    json_near(MODULES, tuple(MODULES[0])),
    json_near([POOLING, DENSE, PROMPTS]),
    json_near(HEADER, ("dtype", "shape")),
)
@BOUNDED
def test_checkpoint_files(config: Any, modules: Any, others: Any, weights: Any) -> None:
    pooling, dense, prompts = (*others, None, None, None)[:3] if isinstance(others, list) else (others,) * 3
    files = {
        "config__json": encode_json(config),
        "modules__json": encode_json(modules),
        "1_Pooling___config__json": encode_json(pooling),
        "2_Dense___config__json": encode_json(dense),
        "config_sentence_transformers__json": encode_json(prompts),
        "model__safetensors": header(weights),
    }
    with folder_with(**files) as folder, suppress(CheckpointError):
        Checkpoint.read(folder)


@cache
def tokenizer_json(name: str) -> Any:
    return json.loads(small_tokenizer(name).to_str())


@given(
    st.sampled_from(sorted(BUILDERS)).flatmap(
        lambda name: json_near(tokenizer_json(name), ("type", "vocab", "id")).map(encode_json)
    ),
    json_near(TOKENIZER_CONFIG, tuple(TOKENIZER_CONFIG)),
)
@BOUNDED
def test_tokenizer_files(tokenizer: bytes, config: Any) -> None:
    files = {
        "config__json": encode_json(BERT | {"architectures": ["BertModel"]}),
        "tokenizer__json": tokenizer,
        "tokenizer_config__json": encode_json(config),
    }
    with folder_with(**files) as folder:
        with suppress(CheckpointError):
            Tokenizer.load(Checkpoint.read(folder))
        with suppress(CheckpointError):
            look_up_token_ids(folder, ["yes", "no"])
