"""A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538) in place of a feed-forward. A router chooses a few
experts for each row; the result is the sum of their outputs, weighted by the router. Nomic-BERT has it.

Experts have no capacity limit: no row is dropped, and a row does not depend on the other rows of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation, apply_activation
from engine_svc.models.linear import Linear, make_linear, suitable_rows

# From rows [rows, hidden] and their experts, int64 [rows, top_k], to [rows, top_k, hidden].
FeedForwards = Callable[[Tensor, Tensor], Tensor]

# Hopper and Blackwell. On other GPUs, PyTorch's grouped product counts rows on the host.
GROUPED_CAPABILITIES = (9, 10)
# The grouped product needs each row of its matrices to start at a multiple of this many bytes.
GROUPED_BYTES = 16


@dataclass(frozen=True, slots=True)
class Experts:
    router: Tensor  # float32 [experts, hidden]
    feed_forwards: FeedForwards
    top_k: int  # experts of each row
    bias: Tensor  # [hidden], of the sum

    def __call__(self, hidden: Tensor) -> Tensor:
        shares, choices = functional.linear(hidden.float(), self.router).softmax(1).topk(self.top_k, 1)
        by_row = self.feed_forwards(hidden, choices)
        return (by_row * shares[:, :, None]).sum(1).add_(self.bias).to(hidden.dtype)


@dataclass(frozen=True, slots=True)
class CountedExperts:
    """Each expert computes its own rows. For a CPU, because the host counts them."""

    experts: Sequence[tuple[Linear, Linear]]  # hidden to intermediate, activation included, and back

    def __call__(self, hidden: Tensor, choices: Tensor) -> Tensor:
        top_k = choices.shape[1]
        order = choices.flatten().argsort(stable=True)  # pairs of a row and an expert, by expert
        counts: list[int] = choices.flatten().bincount(minlength=len(self.experts)).tolist()
        groups = torch.split(hidden[order // top_k], counts)
        outputs = [self._run_expert(index, rows) for index, rows in enumerate(groups) if len(rows)]
        by_pair = torch.empty(len(order), hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
        by_pair[order] = torch.cat(outputs)
        return by_pair.view(len(hidden), top_k, -1)

    def _run_expert(self, index: int, rows: Tensor) -> Tensor:
        up, down = self.experts[index]
        fillers = suitable_rows(len(rows), rows.device, rows.dtype) - len(rows)
        return down(up(functional.pad(rows, (0, 0, 0, fillers))))[: len(rows)]


@dataclass(frozen=True, slots=True)
class GroupedExperts:
    """Each expert computes its own rows, all in one product, which reads on the GPU where the rows of each expert
    start. For bfloat16, from Hopper on."""

    ups: Tensor  # [experts, intermediate, hidden]
    downs: Tensor  # [experts, hidden, intermediate]
    activation: Activation

    def __call__(self, hidden: Tensor, choices: Tensor) -> Tensor:
        top_k = choices.shape[1]
        by_expert, order = choices.flatten().sort(stable=True)
        experts = torch.arange(len(self.ups), device=hidden.device)
        stops = torch.searchsorted(by_expert, experts, right=True, out_int32=True)
        rows = hidden.index_select(0, order // top_k)
        inner = apply_activation(functional.grouped_mm(rows, self.ups.transpose(1, 2), offs=stops), self.activation)
        outputs = functional.grouped_mm(inner, self.downs.transpose(1, 2), offs=stops)
        by_pair = torch.empty_like(outputs).index_copy_(0, order, outputs)
        return by_pair.view(len(hidden), top_k, -1)


@dataclass(frozen=True, slots=True)
class MaskedExperts:
    """Each expert computes all rows, and the result keeps the rows that chose it. This is several times the work. For
    GPUs without a grouped product."""

    experts: Sequence[tuple[Linear, Linear]]

    def __call__(self, hidden: Tensor, choices: Tensor) -> Tensor:
        by_row = hidden.new_zeros(*choices.shape, hidden.shape[1])
        for index, (up, down) in enumerate(self.experts):
            by_row = torch.where((choices == index)[:, :, None], down(up(hidden))[:, None], by_row)
        return by_row


def build_experts(ups: Tensor, downs: Tensor, activation: Activation) -> FeedForwards:
    """`ups` and `downs` are [experts, intermediate, hidden], as checkpoints store both. The form depends on device and
    type."""
    if has_grouped_product(ups):
        return GroupedExperts(ups, downs.transpose(1, 2).contiguous(), activation)
    experts = [
        (make_linear(up, None, activation), make_linear(down.T.contiguous(), None))
        for up, down in zip(ups, downs, strict=True)
    ]
    return MaskedExperts(experts) if ups.is_cuda else CountedExperts(experts)


def has_grouped_product(weights: Tensor) -> bool:
    """Whether PyTorch has a grouped product for these weights [experts, outputs, inputs] that the host need not wait
    for."""
    if not weights.is_cuda or weights.dtype is not torch.bfloat16 or not hasattr(functional, "grouped_mm"):
        return False
    is_aligned = all(size * weights.element_size() % GROUPED_BYTES == 0 for size in weights.shape[1:])
    return is_aligned and torch.cuda.get_device_capability(weights.device)[0] in GROUPED_CAPABILITIES
