"""What heads and pooling need to know about the sequences of a batch: options and which rows are asked for. Built by
`PackedTokens`, which takes it to the device together with the token ids.

Most batches ask for the default in everything. Then there is nothing to upload, and heads leave out the operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.batch import Output, PackedBatch
from engine_svc.models.upload import Upload
from engine_svc.pooling import Prompts

# Outputs with a row for each sequence; the others have one for each token.
SEQUENCE_OUTPUTS = frozenset({Output.VECTOR, Output.LOGITS})

NAMES = ("prompt_tokens", "dimensions", "skip_normalization")


@dataclass(frozen=True, slots=True)
class Selection:
    """The sequences of a batch that ask for an output."""

    places: npt.NDArray[np.intp]  # in the batch, on the host
    lengths: npt.NDArray[np.int32]  # their tokens, on the host
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
    lengths: npt.NDArray[np.int32]
    places: Mapping[Output, npt.NDArray[np.intp]]  # of the sequences that ask for the output

    @classmethod
    def of(cls, batch: PackedBatch) -> "HeadOptions":
        columns: dict[str, npt.NDArray[np.int32]] = {}
        for name in NAMES:
            values = [getattr(options, name) for options in batch.options]
            if any(values):
                columns[name] = np.array(values, np.int32)[batch.option_indices]
        pooled_tokens = batch.tokens
        if "prompt_tokens" in columns:
            columns["prompt_tokens"] = np.minimum(columns["prompt_tokens"], batch.lengths)
            pooled_tokens -= int(columns["prompt_tokens"].sum())
        places = batch.output_indices
        for output, own in places.items():
            if len(own) < len(batch):
                columns[output.name] = rows_of(output, own, batch)
        return cls(columns, pooled_tokens, batch.lengths, places)

    def add_to(self, upload: Upload) -> None:
        for name, column in self.columns.items():
            upload.add(name, column)

    def on_device(self, sent: Mapping[str, Tensor]) -> HeadInputs:
        """From the columns of the upload, under the names of `add_to`."""
        prompt_tokens, skips = sent.get("prompt_tokens"), sent.get("skip_normalization")
        return HeadInputs(
            prompts=None if prompt_tokens is None else Prompts(prompt_tokens, self.pooled_tokens),
            dimensions=sent.get("dimensions"),
            skips_normalization=None if skips is None else skips.to(torch.bool),
            selections={
                output: Selection(places, self.lengths[places], sent.get(output.name))
                for output, places in self.places.items()
            },
        )


def rows_of(output: Output, indices: npt.NDArray[np.intp], batch: PackedBatch) -> npt.NDArray[np.int32]:
    """Of the sequences with these indices, or of their tokens: first, first + 1, ... for each."""
    if output in SEQUENCE_OUTPUTS:
        return indices.astype(np.int32)
    lengths = batch.lengths[indices]
    stops = lengths.cumsum()
    shifts = np.repeat(batch.cu_seqlens[indices] - (stops - lengths), lengths)
    return (shifts + np.arange(len(shifts))).astype(np.int32)
