"""The mixture of experts against its definition, row by row."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.experts import Experts
from engine_svc.models.linear import Activation, linear

HIDDEN, INTERMEDIATE, COUNT, CHOSEN = 8, 12, 5, 2


def random_parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ([COUNT, HIDDEN], [COUNT, INTERMEDIATE, HIDDEN], [COUNT, HIDDEN, INTERMEDIATE], [HIDDEN])
    router, ups, downs, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return router, ups, downs, bias


def experts_of(router: Tensor, ups: Tensor, downs: Tensor, bias: Tensor) -> Experts:
    pairs = [(linear(up, None, Activation.GELU), linear(down, None)) for up, down in zip(ups, downs, strict=True)]
    return Experts(router, pairs, CHOSEN, bias)


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_rows_are_what_their_own_experts_make_of_them(rows: int) -> None:
    router, ups, downs, bias = random_parts()
    hidden = torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(1))
    expected = []
    for row in hidden:
        shares = (router @ row).softmax(0)
        best = shares.argsort(descending=True)[:CHOSEN]
        expected.append(sum(shares[i] * (downs[i] @ functional.gelu(ups[i] @ row)) for i in best.tolist()) + bias)
    torch.testing.assert_close(
        experts_of(router, ups, downs, bias)(hidden), torch.stack(expected), atol=1e-5, rtol=1e-4
    )


def test_row_is_the_same_alone_and_beside_rows_of_one_expert() -> None:
    experts = experts_of(*random_parts())
    row = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(2))
    crowd = torch.cat([row] * 50 + [torch.zeros(3, HIDDEN)])
    torch.testing.assert_close(experts(crowd)[49:50], experts(row), atol=1e-6, rtol=0)


def test_nan_of_one_row_spares_the_others() -> None:
    hidden = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(3))
    hidden[1] = float("nan")
    bad = experts_of(*random_parts())(hidden).isnan().any(1)
    assert bad.tolist() == [False, True, False, False]
