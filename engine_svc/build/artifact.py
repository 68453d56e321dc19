"""Converts a checkpoint to an artifact: a folder with one canonical set of weights, which loads like any checkpoint.

`job` calls this. Planning reads only the headers of weight files. `job` adds the manifest.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file

from engine_svc.backends.torch_backend import DTYPES
from engine_svc.build.configuration import Configuration
from engine_svc.build.conversion import convert_all, convert_model
from engine_svc.build.modules_json import encode, join
from engine_svc.build.quantizer import Quantizer
from engine_svc.build.weights_writer import FolderPlan, Progress, write_folders
from engine_svc.models.model import Model
from engine_svc.models.quantization import FILE as QUANTIZATION_FILE
from engine_svc.models.stored_tensors import open_pickle
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError

# Fields of a checkpoint that must be equal in an artifact and its source. The name may differ.
EQUAL_FIELDS = (
    *("architecture", "kind", "labels", "multi_label", "pooling", "include_prompt", "splade", "logit_score"),
    *("normalizes", "dimension", "token_dimension", "matryoshka", "tasks", "prompts", "default_prompt_name"),
    *("sequence_tokens_max", "vocabulary_size", "do_lower_case", "tokenizer_fingerprint"),
)


@dataclass(frozen=True, slots=True)
class ArtifactPlan:
    root: Path
    checkpoint: Checkpoint
    configuration: Configuration
    folders: Sequence[FolderPlan]
    quantizer: Quantizer | None

    @classmethod
    def of(
        cls,
        root: Path,
        checkpoint: Checkpoint,
        configuration: Configuration,
        *,
        data_type: str = "",
        quantizer: Quantizer | None = None,
        file_bytes_max: int | None = None,
    ) -> Self:
        """`checkpoint` was read from `root`. `data_type` is float32, bfloat16, float16, or "" to keep the stored types.
        A weight file holds at most `file_bytes_max` bytes of tensors. Raises CheckpointError."""
        home, *others = configuration.weights
        conversions = convert_model(checkpoint, DTYPES.get(data_type))
        folders = [
            FolderPlan.of(home, conversions, quantizer, file_bytes_max),
            *(FolderPlan.of(path, convert_all(root / path), None, file_bytes_max) for path in others),
        ]
        if quantizer is not None and not any(part.is_quantized for part in folders[0].parts):
            raise CheckpointError(f"{root} has no weights that can be quantized")
        return cls(root, checkpoint, configuration, folders, quantizer)

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files to write."""
        return sum(folder.size for folder in self.folders)

    @property
    def stored_bytes(self) -> int:
        """Size of the tensors to read."""
        return sum(folder.stored_bytes for folder in self.folders)

    def write(self, output: Path, devices: Sequence[torch.device], progress: Progress) -> None:
        """Writes into the empty folder `output`. Each of `devices` quantizes weights in its own thread. Raises OSError,
        and CheckpointError, also if the artifact would be served differently from its source."""
        write_folders(self.folders, output, self.quantizer, devices, progress)
        self._write_configuration(output)
        self._check(output)

    def _write_configuration(self, output: Path) -> None:
        for path in self.configuration.copied:
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            copy_file(self.root / path, output / path)
        for path, content in self.configuration.written.items():
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            (output / path).write_bytes(content)
        if self.quantizer is not None:
            (output / join(self.folders[0].path, QUANTIZATION_FILE)).write_bytes(encode(self.quantizer.config))

    def _check(self, output: Path) -> None:
        artifact = Checkpoint.read(output)
        for name in EQUAL_FIELDS:
            ours, theirs = getattr(artifact, name), getattr(self.checkpoint, name)
            if ours != theirs:
                raise CheckpointError(f"{self.root}: its build would have {name} {ours!r} instead of {theirs!r}")
        model = Model.load(artifact, dtype=torch.float32, device=torch.device("meta"))
        if self.quantizer is None and model.unused and not artifact.tasks:
            raise CheckpointError(f"{self.root}: its build would not use the tensors {', '.join(model.unused)}")


def copy_file(source: Path, target: Path) -> None:
    """Converts pickled files, such as the heads of bge-m3, to safetensors."""
    if source.suffix != ".pt":
        shutil.copyfile(source, target)
        return
    tensors = {name: stored.read(...).contiguous() for name, stored in open_pickle(source).items()}
    save_file(tensors, target.with_suffix(".safetensors"), metadata={"format": "pt"})
