"""What heads and pooling need to know about the sequences of a batch: options and which rows are asked for. Built by
`PackedTokens`, which takes it to the device together with the token ids.

Most batches ask for the default in everything. Then there is nothing to upload, and heads leave out the operations.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch, Sequence
from engine_svc.models.upload import Upload
from engine_svc.pooling import Prompts

# Outputs with an array for each sequence; the others have one for each token.
SEQUENCE_OUTPUTS = frozenset({Output.VECTOR, Output.LOGITS})

OPTIONS = attrgetter("prompt_tokens", "dimensions", "skip_normalization")
OUTPUTS = attrgetter("output", "more_outputs")


@dataclass(frozen=True, slots=True)
class Selection:
    """The sequences of a batch that ask for an output."""

    sequences: Sequences[Sequence]
    rows: Tensor | None = None  # int32: their rows, or rows of their tokens; None if all sequences ask for it

    def of(self, rows: Tensor) -> Tensor:
        return rows if self.rows is None else rows.index_select(0, self.rows)


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """None stands for the default of all sequences."""

    prompts: Prompts | None = None
    dimensions: Tensor | None = None  # int32 [B], 0 = all
    skips_normalization: Tensor | None = None  # bool [B]
    selections: Mapping[Output, Selection] = field(default_factory=dict)  # of the outputs that a sequence asks for


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """The same on the host. Columns that are all 0 are left out."""

    columns: Mapping[str, npt.NDArray[np.int32]]
    pooled_tokens: int
    sequences: Mapping[Output, Sequences[Sequence]]

    @classmethod
    def of(cls, batch: PackedBatch) -> "HeadOptions":
        columns: dict[str, npt.NDArray[np.int32]] = {}
        pooled_tokens = batch.tokens
        options = list(map(OPTIONS, batch.sequences))
        if options.count((0, 0, False)) != len(options):
            prompt_tokens, dimensions, skips = np.array(options, np.int32).T
            columns = {"prompt_tokens": prompt_tokens, "dimensions": dimensions, "skips_normalization": skips}
            columns = {name: column for name, column in columns.items() if column.any()}
            pooled_tokens -= int(np.minimum(prompt_tokens, batch.lengths).sum())
        outputs = list(map(OUTPUTS, batch.sequences))
        if outputs.count(outputs[0]) == len(outputs):
            return cls(columns, pooled_tokens, dict.fromkeys(batch.sequences[0].outputs, batch.sequences))
        sequences: dict[Output, Sequences[Sequence]] = {}
        for output, indices in indices_by_output(batch.sequences).items():
            sequences[output] = [batch.sequences[index] for index in indices]
            if len(indices) != len(batch.sequences):
                columns[output.name] = rows_of(output, np.array(indices), batch)
        return cls(columns, pooled_tokens, sequences)

    def add_to(self, upload: Upload) -> None:
        for name, column in self.columns.items():
            upload.add(name, column)

    def on_device(self, sent: Mapping[str, Tensor]) -> HeadInputs:
        """From the columns of the upload, under the names of `add_to`."""
        prompt_tokens, skips = sent.get("prompt_tokens"), sent.get("skips_normalization")
        return HeadInputs(
            prompts=None if prompt_tokens is None else Prompts(prompt_tokens, self.pooled_tokens),
            dimensions=sent.get("dimensions"),
            skips_normalization=None if skips is None else skips.to(torch.bool),
            selections={
                output: Selection(sequences, sent.get(output.name)) for output, sequences in self.sequences.items()
            },
        )


def indices_by_output(sequences: Sequences[Sequence]) -> dict[Output, list[int]]:
    indices: dict[Output, list[int]] = {}
    for index, sequence in enumerate(sequences):
        for output in sequence.outputs:
            indices.setdefault(output, []).append(index)
    return indices


def rows_of(output: Output, indices: npt.NDArray[np.intp], batch: PackedBatch) -> npt.NDArray[np.int32]:
    """Of the sequences with these indices, or of their tokens: first, first + 1, ... for each."""
    if output in SEQUENCE_OUTPUTS:
        return indices.astype(np.int32)
    lengths = batch.lengths[indices]
    stops = lengths.cumsum()
    shifts = np.repeat(batch.cu_seqlens[indices] - (stops - lengths), lengths)
    return (shifts + np.arange(len(shifts))).astype(np.int32)
