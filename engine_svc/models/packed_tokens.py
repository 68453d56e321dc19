"""A packed batch as tensors on the device: the input of a model's forward pass and of its head. Everything that a pass
needs from the host goes to the device in one copy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine_svc.models.layout import Layout
from engine_svc.models.linear import suitable_rows
from engine_svc.models.lora import AdapterRows, group_rows_by_adapter
from engine_svc.models.prefixes import SharedPrefixes, find_shared_prefixes
from engine_svc.pooling import Prompts
from engine_svc.sequences import Output, PackedBatch

# Outputs with a row for each sequence; the others have one for each token.
SEQUENCE_OUTPUTS = frozenset({Output.VECTOR, Output.LOGITS})

OPTION_NAMES = ("prompt_tokens", "dimensions", "skip_normalization")

Integers = npt.NDArray[np.integer] | npt.NDArray[np.bool_]

# Each column starts at a multiple of 16 bytes: Triton compiles a kernel anew for pointers that do not.
ALIGNED_NUMBERS = 4
GAPS = [np.zeros(size, np.int32) for size in range(ALIGNED_NUMBERS)]


class Upload:
    """Named columns of integers, end to end in one int32 buffer: the only copy from the host to the device that a
    forward pass makes."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sizes: list[int] = []  # of each column, then of the gap behind it
        self._parts: list[Integers] = []

    def add(self, name: str, *parts: Integers) -> None:
        """Adds a column that consists of these parts, end to end."""
        size = sum(map(len, parts))
        gap = -size % ALIGNED_NUMBERS
        self._names.append(name)
        self._sizes += (size, gap)
        self._parts += (*parts, GAPS[gap])

    def send(self, device: torch.device) -> Mapping[str, Tensor]:
        """The columns on the device, int32."""
        columns = torch.split(copy_to_device(self._parts, device), self._sizes)
        return dict(zip(self._names, columns[::2], strict=True))


def copy_to_device(parts: Sequence[Integers], device: torch.device) -> Tensor:
    """The parts end to end, int32. Does not wait for a GPU: a copy from pinned memory is queued like a kernel, and
    PyTorch does not reuse the memory before the copy is done."""
    host = torch.empty(sum(map(len, parts)), dtype=torch.int32, pin_memory=device.type == "cuda")
    np.concatenate(parts, out=host.numpy())
    return host.to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """The sequences of a batch that ask for an output."""

    indices: npt.NDArray[np.intp]  # in the batch, on the host
    lengths: npt.NDArray[np.int32]  # their tokens, on the host
    rows: Tensor | None = None  # int32: their rows, or rows of their tokens; None if all sequences ask for it

    def select(self, rows: Tensor) -> Tensor:
        return rows if self.rows is None else rows.index_select(0, self.rows)


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """What pooling and heads need to know about the sequences. None stands for the default of all sequences. Most
    batches use the defaults only; then nothing is uploaded, and heads leave out the operations."""

    prompts: Prompts | None = None
    dimensions: Tensor | None = None  # int32 [B], 0 = all
    skip_normalization: Tensor | None = None  # bool [B]
    selections: Mapping[Output, Selection] = field(default_factory=dict)  # of the outputs that a sequence asks for


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """The same on the host. Columns that are all 0 are left out."""

    columns: Mapping[str, npt.NDArray[np.int32]]
    pooled_tokens: int
    lengths: npt.NDArray[np.int32]
    output_indices: Mapping[Output, npt.NDArray[np.intp]]  # of the sequences that ask for the output

    @classmethod
    def of(cls, batch: PackedBatch) -> "HeadOptions":
        columns: dict[str, npt.NDArray[np.int32]] = {}
        for name in OPTION_NAMES:
            values = [getattr(options, name) for options in batch.options]
            if any(values):
                columns[name] = np.array(values, np.int32)[batch.option_indices]
        pooled_tokens = batch.tokens
        if "prompt_tokens" in columns:
            columns["prompt_tokens"] = np.minimum(columns["prompt_tokens"], batch.lengths)
            pooled_tokens -= int(columns["prompt_tokens"].sum())
        for output, indices in batch.output_indices.items():
            if len(indices) < len(batch):
                columns[output.name] = find_output_rows(output, indices, batch)
        return cls(columns, pooled_tokens, batch.lengths, batch.output_indices)

    def add_to(self, upload: Upload) -> None:
        for name, column in self.columns.items():
            upload.add(name, column)

    def on_device(self, sent: Mapping[str, Tensor]) -> HeadInputs:
        """Takes the columns from the upload, under the names of `add_to`."""
        prompt_tokens, skip = sent.get("prompt_tokens"), sent.get("skip_normalization")
        return HeadInputs(
            prompts=None if prompt_tokens is None else Prompts(prompt_tokens, self.pooled_tokens),
            dimensions=sent.get("dimensions"),
            skip_normalization=None if skip is None else skip.to(torch.bool),
            selections={
                output: Selection(indices, self.lengths[indices], sent.get(output.name))
                for output, indices in self.output_indices.items()
            },
        )


def find_output_rows(output: Output, indices: npt.NDArray[np.intp], batch: PackedBatch) -> npt.NDArray[np.int32]:
    """The rows of the sequences with these indices, or of all their tokens."""
    if output in SEQUENCE_OUTPUTS:
        return indices.astype(np.int32)
    lengths = batch.lengths[indices]
    stops = lengths.cumsum()
    shifts = np.repeat(batch.cu_seqlens[indices] - (stops - lengths), lengths)
    return (shifts + np.arange(len(shifts))).astype(np.int32)


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """`rows` tokens: those of the sequences end to end, or one for each group with the same prefix; then fillers (id 0)
    up to a number of rows that suits the linears."""

    ids: Tensor  # int32 [rows]
    type_ids: Tensor  # int32 [rows]
    positions: Tensor  # int32 [rows], from 0 in each sequence
    layout: Layout
    head_inputs: HeadInputs = field(default_factory=HeadInputs)
    adapter_rows: AdapterRows | None = None  # for `use_adapters`

    @classmethod
    def of(
        cls,
        batch: PackedBatch,
        *,
        device: torch.device,
        dtype: torch.dtype,
        share_prefixes: bool = False,
        tasks: Sequence[str] = (),
    ) -> "PackedTokens":
        """`share_prefixes` is for causal models without token types; `tasks` are the model's adapters."""
        prefixes = find_shared_prefixes(batch) if share_prefixes else None
        rows_by_adapter, head_options = group_rows_by_adapter(batch, tasks), HeadOptions.of(batch)
        upload = Upload()
        add_tokens(upload, batch, prefixes, device, dtype)
        for task, rows in rows_by_adapter.items():
            upload.add(f"adapter {task}", rows)
        head_options.add_to(upload)
        sent = upload.send(device)
        lengths, cu_seqlens = batch.lengths.tolist(), sent["cu_seqlens"]
        layout = (
            Layout.of(lengths, cu_seqlens)
            if prefixes is None
            else Layout(
                lengths, prefixes.query_lengths.tolist(), cu_seqlens, sent["cu_seqlens_q"], sent["row_of_token"]
            )
        )
        return cls(
            sent["ids"],
            sent["type_ids"],
            sent["positions"],
            layout,
            head_options.on_device(sent),
            AdapterRows.of({task: sent[f"adapter {task}"] for task in rows_by_adapter}, tasks),
        )

    def gather_tokens(self, hidden: Tensor) -> Tensor:
        """Copies the rows' hidden states to all tokens: [at least T, hidden size]."""
        return self.layout.gather_tokens(hidden)


def add_tokens(
    upload: Upload, batch: PackedBatch, prefixes: SharedPrefixes | None, device: torch.device, dtype: torch.dtype
) -> None:
    tokens = batch.tokens if prefixes is None else len(prefixes.token_of_row)
    fillers = np.zeros(suitable_rows(tokens, device, dtype) - tokens, np.int32)
    columns = {"ids": batch.token_ids, "type_ids": batch.type_ids, "positions": batch.positions}
    for name, column in columns.items():
        upload.add(name, column if prefixes is None else column[prefixes.token_of_row], fillers)
    upload.add("cu_seqlens", batch.cu_seqlens)
    if prefixes is not None:
        upload.add("cu_seqlens_q", np.zeros(1, np.int32), prefixes.query_lengths.cumsum())
        upload.add("row_of_token", prefixes.row_of_token)
