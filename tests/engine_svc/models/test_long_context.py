"""Texts as long as decoders take, each in a process of its own: in little memory, and in bounded time."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import Gemma2Model, Gemma3TextModel, PreTrainedModel, Qwen3Model

from heddle.checkpoint import Checkpoint
from tests.engine_svc.models.cases import save
from tests.engine_svc.models.cases_of.decoders import small

LONG = {"hidden_size": 256, "num_attention_heads": 4, "head_dim": 64, "intermediate_size": 768}
# The time goes with the square of the length, the heads and their size: here one of 16.
LONGEST = {**LONG, "hidden_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16}

CODE = """
import re, pathlib, sys
import numpy as np
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.sequences import Sequence, packed, run_each
def kib(name): return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
backend = TorchBackend(Checkpoint.read(pathlib.Path(sys.argv[1])), dtype="float32", device="cpu")
ids = np.random.default_rng(0).integers(0, 97, int(sys.argv[2]), dtype=np.uint32)
before = kib("VmRSS")
[vector] = run_each(backend, packed([Sequence(ids.tobytes())]))
assert np.isclose(np.linalg.norm(vector), 1)
print((kib("VmHWM") - before) / 2**10)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "tokens", "config"),
    [
        pytest.param(Qwen3Model, 32_768, LONG, id="qwen3"),
        pytest.param(Qwen3Model, 131_072, {**LONGEST, "num_hidden_layers": 1}, id="qwen3, longest"),
        pytest.param(Gemma2Model, 8192, {**LONG, "sliding_window": 4096}, id="gemma2, capped scores"),
        pytest.param(Gemma3TextModel, 32_768, {**LONG, "sliding_window": 512}, id="gemma3, windows"),
    ],
)
def test_long_text_needs_little_memory(
    tmp_path: Path, model_class: type[PreTrainedModel], tokens: int, config: dict[str, Any]
) -> None:
    save(small(model_class, max_position_embeddings=tokens, **config), tmp_path)
    assert Checkpoint.read(tmp_path).sequence_tokens_max == tokens
    command = [sys.executable, "-c", CODE, str(tmp_path), str(tokens)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=240)
    assert float(run.stdout) < 2048  # MiB
