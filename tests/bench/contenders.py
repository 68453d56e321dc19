"""Other ways to run the same model on the same batch, padded to its longest sequence. `engine` uses them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from engine_svc.backends.torch_backend import DTYPES
from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint
from tests.bench.environments import PINS, Environment
from tests.sequences import sequences_of

Padded = tuple[torch.Tensor, torch.Tensor]


def padded(batch: PackedBatch) -> Padded:
    """Returns ids and mask [sequences, longest]."""
    ids = torch.zeros(len(batch), batch.length_max, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences_of(batch)):
        ids[row, : sequence.tokens] = torch.from_numpy(np.frombuffer(sequence.token_ids, "<u4").astype(np.int64))
        mask[row, : sequence.tokens] = 1
    return ids, mask


class PaddedEager:
    """The model as a server runs it that pads a batch to its longest sequence."""

    def __init__(self, checkpoint: Checkpoint, data_type: str, device: str = "cpu") -> None:
        model = AutoModel.from_pretrained(checkpoint.folder, dtype=DTYPES[data_type], attn_implementation="sdpa")
        self._model: Any = model.eval().to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, batch: PackedBatch) -> np.ndarray:
        ids, mask = (tensor.to(self._device) for tensor in padded(batch))
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=1).cpu().numpy()


class PaddedCompiled(PaddedEager):
    """The same with torch.compile, frozen weights and one graph for all shapes. Needs a C++ compiler."""

    def __init__(self, checkpoint: Checkpoint, data_type: str) -> None:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        super().__init__(checkpoint, data_type)
        self._model = torch.compile(self._model, dynamic=True)


class OpenVINO:
    """Runs in a process and an environment of its own. It gets a batch once, and then only commands to run it again."""

    def __init__(self, checkpoint: Checkpoint, data_type: str, base: Path) -> None:
        environment = Environment("openvino", base)
        environment.install()
        threads = str(len(os.sched_getaffinity(0)))
        self._process = subprocess.Popen(
            [environment.python, "-W", "ignore", PINS / "openvino_worker.py", checkpoint.folder, data_type, threads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        )
        self._batch: PackedBatch | None = None

    def run(self, batch: PackedBatch) -> np.ndarray:
        if batch is self._batch:
            return np.array(self._told("again"))
        self._batch = batch
        ids, mask = padded(batch)
        return np.array(self._told({"ids": ids.tolist(), "mask": mask.tolist()}))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _told(self, message: object) -> list[float]:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(message), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("OpenVINO's process ended")
        vector: list[float] = json.loads(answer)
        return vector
