"""Loading a model needs little more memory than the model: the high-water mark of a process that does nothing else."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, PreTrainedModel, Qwen3Config, Qwen3Model

from tests.checkpoints import write_json
from tests.engine_svc.models.cases_of import jina_roberta

# "5" resets the high-water mark.
CODE = """
import pathlib, re, sys
from engine_svc.backends.torch_backend import TorchBackend
from heddle.checkpoint import Checkpoint
def kib(name): return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
checkpoint = Checkpoint.read(pathlib.Path(sys.argv[1]))
import torch
torch.nn.functional.linear(torch.ones(32, 32), torch.ones(32, 32))
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS")
backend = TorchBackend(checkpoint, dtype=sys.argv[2], device="cpu", adapter=sys.argv[3])
print((kib("VmHWM") - before) / 2**10, (kib("VmRSS") - before) / 2**10)
"""

BERT = BertModel, BertConfig(num_hidden_layers=12)
LARGE_VOCABULARY = (
    BertModel,
    BertConfig(vocab_size=250_002, hidden_size=384, intermediate_size=1536, num_hidden_layers=12),
)
QWEN3 = (
    Qwen3Model,
    Qwen3Config(
        vocab_size=60_000,
        hidden_size=768,
        intermediate_size=2304,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=96,
    ),
)


# What the sizes of the small Jina v3 become.
ENLARGED = {32: 512, 48: 2048, 96: 1536, 97: 150_000}


def write_hollow(folder: Path, config: Mapping[str, object], shapes: Mapping[str, Sequence[int]]) -> None:
    """Writes a checkpoint in float32 that is as large as a real one and takes no disk: all zeros, because a header and
    a hole make the file of weights."""
    write_json(folder / "config.json", config)
    header, stop = {}, 0
    for name, shape in shapes.items():
        start, stop = stop, stop + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + stop)


def check_memory(folder: Path, numbers: int, dtype: str, adapter: str = "") -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(folder), dtype, adapter],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=240,
    )
    most, end = map(float, run.stdout.split())
    size = numbers * {"float32": 4, "bfloat16": 2}[dtype] / 2**20
    print(f"size {size:.0f} MiB, at the most {most:.0f}, in the end {end:.0f}")
    assert 0.9 * size < most < 1.2 * size


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("made_of", [BERT, LARGE_VOCABULARY, QWEN3], ids=["bert", "large vocabulary", "qwen3"])
def test_loading_needs_little_more_memory_than_the_model(
    tmp_path: Path, made_of: tuple[type[PreTrainedModel], BertConfig | Qwen3Config], dtype: str
) -> None:
    model_class, config = made_of
    with torch.device("meta"):
        model = model_class(config)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items() if "pooler" not in name}
    write_hollow(tmp_path, {**config.to_dict(), "architectures": [model_class.__name__]}, shapes)
    check_memory(tmp_path, sum(map(math.prod, shapes.values())), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pickled_file_needs_no_more_memory_than_safetensors(tmp_path: Path, dtype: str) -> None:
    model_class, config = LARGE_VOCABULARY
    with torch.device("meta"):
        model = model_class(config)
    weights = {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items() if "pooler" not in name}
    write_json(tmp_path / "config.json", {**config.to_dict(), "architectures": [model_class.__name__]})
    torch.save(weights, tmp_path / "pytorch_model.bin")
    check_memory(tmp_path, sum(tensor.numel() for tensor in weights.values()), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_loaded_in_little_more_memory_than_they_and_the_model_have(tmp_path: Path, dtype: str) -> None:
    jina_roberta.CASES[0].write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("vocab_size", "hidden_size", "intermediate_size"):
        config[name] = ENLARGED[config[name]]
    stored = load_file(tmp_path / "model.safetensors")
    shapes = {name: [ENLARGED.get(size, size) for size in tensor.shape] for name, tensor in stored.items()}
    write_hollow(tmp_path, config, shapes)
    own = [shape for name, shape in shapes.items() if ".lora_" not in name]
    # The others are kept for requests that name them, with what takes the merged one out again.
    others = [shape for name, shape in shapes.items() if ".lora_" in name]
    kept = 2 * sum(map(math.prod, others)) * (len(jina_roberta.ADAPTERS) - 1) // len(jina_roberta.ADAPTERS)
    check_memory(tmp_path, sum(map(math.prod, own)) + kept, dtype, "separation")
