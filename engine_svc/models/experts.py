"""A mixture of experts (Shazeer et al. 2017, arXiv 1701.06538) in place of a feed-forward: each row goes through the
few experts that a router finds best for it, and what they make of it is added up by the router's weights.

No expert has a limit, so no row is ever left out, and which ones run beside it makes no difference to a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.linear import Linear, suitable_rows


@dataclass(frozen=True, slots=True)
class Experts:
    router: Tensor  # float32 [experts, hidden]
    experts: Sequence[tuple[Linear, Linear]]  # hidden to intermediate, activation included, and back
    chosen: int  # experts of each row
    bias: Tensor  # [hidden], of the sum

    def __call__(self, hidden: Tensor) -> Tensor:
        shares, choices = functional.linear(hidden.float(), self.router).softmax(1).topk(self.chosen, 1)
        order = choices.flatten().argsort(stable=True)  # pairs of a row and an expert, by expert
        counts: list[int] = choices.flatten().bincount(minlength=len(self.experts)).tolist()
        groups = torch.split(hidden[order // self.chosen], counts)
        made = [self._through(index, rows) for index, rows in enumerate(groups) if len(rows)]
        by_pair = torch.empty(len(order), hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
        by_pair[order] = torch.cat(made)
        by_row = by_pair.view(len(hidden), self.chosen, -1)
        return (by_row * shares[:, :, None]).sum(1).add_(self.bias).to(hidden.dtype)

    def _through(self, index: int, rows: Tensor) -> Tensor:
        up, down = self.experts[index]
        fillers = suitable_rows(len(rows), rows.device, rows.dtype) - len(rows)
        return down(up(functional.pad(rows, (0, 0, 0, fillers))))[: len(rows)]
