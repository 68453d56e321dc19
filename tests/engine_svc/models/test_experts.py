"""The mixture of experts against its definition, row by row."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.activations import Activation
from engine_svc.models.experts import CountedExperts, Experts, GroupedExperts, MaskedExperts
from engine_svc.models.linear import PlainLinear, make_linear
from engine_svc.models.model import Model
from heddle.checkpoint import Checkpoint
from tests.engine_svc.models.cases_of.all import CASES

HIDDEN, INTERMEDIATE, COUNT, CHOSEN = 8, 12, 5, 2


def random_parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ([COUNT, HIDDEN], [COUNT, INTERMEDIATE, HIDDEN], [COUNT, HIDDEN, INTERMEDIATE], [HIDDEN])
    router, ups, downs, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return router, ups, downs, bias


def make_experts(router: Tensor, ups: Tensor, downs: Tensor, bias: Tensor) -> Experts:
    pairs = [
        (make_linear(up, None, Activation.GELU), make_linear(down, None)) for up, down in zip(ups, downs, strict=True)
    ]
    return Experts(router, CountedExperts(pairs), CHOSEN, bias)


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_each_row_is_computed_by_its_own_experts(rows: int) -> None:
    router, ups, downs, bias = random_parts()
    hidden = torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(1))
    expected = []
    for row in hidden:
        shares = (router @ row).softmax(0)
        best = shares.argsort(descending=True)[:CHOSEN]
        expected.append(sum(shares[i] * (downs[i] @ functional.gelu(ups[i] @ row)) for i in best.tolist()) + bias)
    torch.testing.assert_close(
        make_experts(router, ups, downs, bias)(hidden), torch.stack(expected), atol=1e-5, rtol=1e-4
    )


def test_row_is_the_same_alone_and_beside_rows_of_one_expert() -> None:
    experts = make_experts(*random_parts())
    row = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(2))
    crowd = torch.cat([row] * 50 + [torch.zeros(3, HIDDEN)])
    torch.testing.assert_close(experts(crowd)[49:50], experts(row), atol=1e-6, rtol=1e-6)


def test_nan_of_one_row_spares_the_others() -> None:
    hidden = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(3))
    hidden[1] = float("nan")
    bad = make_experts(*random_parts())(hidden).isnan().any(1)
    assert bad.tolist() == [False, True, False, False]


def test_router_distinguishes_weights_that_are_equal_in_bfloat16() -> None:
    """Its weights differ by less than the type of the rows can say."""
    router = torch.ones(2, HIDDEN)
    router[1] += 2**-10
    assert router[0].bfloat16().equal(router[1].bfloat16())
    pairs = [(torch.clone, torch.zeros_like), (torch.clone, torch.ones_like)]
    experts = Experts(router, CountedExperts(pairs), 1, torch.zeros(HIDDEN))
    rows = torch.ones(4, HIDDEN, dtype=torch.bfloat16) * torch.tensor([1, -1, 2, -2])[:, None]
    assert (experts(rows).float().mean(1) > 0.25).tolist() == [True, False, True, False]


def test_router_is_loaded_in_float32(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "as nomic-embed-text-v2-moe")
    case.write(tmp_path)
    model = Model.load(Checkpoint.read(tmp_path), dtype=torch.bfloat16, device=torch.device("meta"))
    routers = [
        layer.feed_forward.router for layer in model.transformer.layers if isinstance(layer.feed_forward, Experts)
    ]
    assert [router.dtype for router in routers] == [torch.float32] * len(routers)
    assert routers


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_experts_for_a_gpu_compute_the_same_as_those_for_a_cpu(rows: int) -> None:
    """Here all of them run on the CPU, which has a grouped product too."""
    generator = torch.Generator().manual_seed(4)
    ups, downs = (torch.randn(COUNT, *shape, generator=generator).bfloat16() for shape in ((16, 8), (8, 16)))
    pairs = [
        (PlainLinear(up, None, Activation.GELU), PlainLinear(down, None, Activation.NONE))
        for up, down in zip(ups, downs, strict=True)
    ]
    hidden = torch.randn(rows, HIDDEN, generator=generator).bfloat16()
    choices = torch.randn(rows, COUNT, generator=generator).topk(CHOSEN, 1).indices
    expected = CountedExperts(pairs)(hidden, choices)
    torch.testing.assert_close(MaskedExperts(pairs)(hidden, choices), expected)
    torch.testing.assert_close(GroupedExperts(ups, downs, Activation.GELU)(hidden, choices), expected)
