"""The attention kernel, in Triton's interpreter, against attention by groups, which is tested against the formula."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from engine_svc.models import attention as chosen
from engine_svc.models.attention import attend, attend_by_group
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.kernels import attention
from engine_svc.models.kernels.attention import attend_by_kernel, choose_block_sizes
from engine_svc.models.layout import Layout
from tests.engine_svc.models.kernels.table import ATTENTION_KERNELS
from tests.engine_svc.models.layouts import accumulate, make_layout

HEADS, KV_HEADS, HEAD_DIM, LONGEST = 2, 1, 24, 80
LENGTHS = (1, 2, 17, 65, 3)
BLOCK = 16

BIAS = torch.randn(HEADS, 2 * LONGEST - 1, generator=torch.Generator().manual_seed(1))
PATTERNS = {
    "all": AttentionPattern(),
    "causal": AttentionPattern(window_right=0),
    "window": AttentionPattern(window_left=5, window_right=3),
    "window of a block": AttentionPattern(window_left=BLOCK, window_right=BLOCK),
    "causal window, scaled": AttentionPattern(window_left=16, window_right=0, scale=0.3),
    "itself alone": AttentionPattern(window_left=0, window_right=0),
    "window that is wider than all": AttentionPattern(window_left=500, window_right=500),
    "softcap": AttentionPattern(softcap=2.0),
    "causal window, softcap": AttentionPattern(window_left=20, window_right=0, softcap=0.5, scale=0.2),
    "bias": AttentionPattern(bias=BIAS),
    "bias, window, softcap": AttentionPattern(bias=BIAS, window_left=9, window_right=30, softcap=3.0),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# NumPy warns of NaNs, which rows beyond the last of a sequence have before they are dropped.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones, so that short sequences have several tiles."""
    monkeypatch.setattr(
        attention,
        "choose_block_sizes",
        lambda *need: dataclasses.replace(choose_block_sizes(*need), rows=BLOCK, keys=BLOCK),
    )


def make_shared_layout(lengths: Sequence[int], query_lengths: Sequence[int]) -> Layout:
    cu_seqlens, cu_seqlens_q = accumulate(lengths), accumulate(query_lengths)
    return Layout(lengths, query_lengths, cu_seqlens, cu_seqlens_q, torch.arange(sum(lengths)))


def random_heads(tokens: int, head_dim: int = HEAD_DIM, num_kv_heads: int = KV_HEADS) -> tuple[Tensor, Tensor, Tensor]:
    """Strided, as one fused projection leaves them."""
    heads = torch.randn(tokens, HEADS + 2 * num_kv_heads, head_dim, generator=torch.Generator().manual_seed(0))
    query, key, value = torch.split(heads, [HEADS, num_kv_heads, num_kv_heads], 1)
    return query, key, value


def by_group(query: Tensor, key: Tensor, value: Tensor, layout: Layout, pattern: AttentionPattern) -> Tensor:
    return attend_by_group(query.float(), key.float(), value.float(), layout, pattern)


@pytest.mark.parametrize("name", PATTERNS)
def test_any_pattern_equals_attention_by_group(name: str) -> None:
    heads, layout = random_heads(sum(LENGTHS)), make_layout(LENGTHS)
    attended = attend_by_kernel(*heads, layout, PATTERNS[name])
    torch.testing.assert_close(attended, by_group(*heads, layout, PATTERNS[name]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("name", ["all", "causal window, softcap", "bias"])
def test_short_types_stay_close_to_float32(name: str, dtype: torch.dtype, tolerance: float) -> None:
    query, key, value = (heads.to(dtype) for heads in random_heads(20))
    attended = attend_by_kernel(query, key, value, make_layout([3, 17]), PATTERNS[name])
    assert attended.dtype == dtype
    expected = by_group(query, key, value, make_layout([3, 17]), PATTERNS[name])
    torch.testing.assert_close(attended.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("head_dim", [8, 32, 64, 72, 80, 96, 128, 256])
def test_any_head_size_equals_attention_by_group(head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "choose_block_sizes", choose_block_sizes)  # those of the GPU
    query, key, value = random_heads(70, head_dim, HEADS)
    layout = make_layout([3, 67])
    attended = attend_by_kernel(query, key, value, layout, PATTERNS["causal window, scaled"])
    torch.testing.assert_close(
        attended, by_group(query, key, value, layout, PATTERNS["causal window, scaled"]), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["causal", "causal window, scaled", "causal window, softcap", "bias"])
def test_fewer_rows_are_those_of_the_last_tokens(name: str) -> None:
    """Shared prefixes make such rows. A sequence may also have no row of its own."""
    own = (1, 0, 4, 33, 0)
    query, key, value = random_heads(sum(LENGTHS))
    layout = make_shared_layout(LENGTHS, own)
    attended = attend_by_kernel(query[: sum(own)], key, value, layout, PATTERNS[name])
    expected = by_group(query[: sum(own)], key, value, layout, PATTERNS[name])
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PATTERNS)
def test_sequence_has_the_same_bits_alone_and_in_any_batch(name: str) -> None:
    lengths = [5, 37, 1, 18]
    heads = random_heads(sum(lengths))
    together = attend_by_kernel(*heads, make_layout(lengths), PATTERNS[name])
    query, key, value = (tensor[5:42] for tensor in heads)
    alone = attend_by_kernel(query, key, value, make_layout([37]), PATTERNS[name])
    assert torch.equal(alone, together[5:42])


def test_row_has_the_same_bits_when_its_prefix_is_shared() -> None:
    query, key, value = random_heads(60)
    whole = attend_by_kernel(query, key, value, make_layout([60]), PATTERNS["causal"])
    own = attend_by_kernel(query[51:], key, value, make_shared_layout([60], [9]), PATTERNS["causal"])
    assert torch.equal(own, whole[51:])


@pytest.mark.parametrize("name", ["all", "causal", "bias"])
def test_nan_stays_in_its_own_sequence(name: str) -> None:
    lengths = [18, 20, 19]
    query, key, value = random_heads(sum(lengths))
    for tensor in (query, key, value):
        tensor[18:38] = math.nan
    attended = attend_by_kernel(query, key, value, make_layout(lengths), PATTERNS[name])
    assert attended[18:38].isnan().all()
    assert torch.cat([attended[:18], attended[38:]]).isfinite().all()


def test_rows_of_fillers_and_empty_sequences_change_nothing() -> None:
    """A captured pass has room for more of both than a batch fills."""
    lengths = [5, 37, 0, 0, 0]
    heads = random_heads(64)
    padded = attend_by_kernel(*heads, make_layout(lengths), PATTERNS["causal"])
    assert torch.equal(padded[:42], attend_by_kernel(*heads, make_layout([5, 37]), PATTERNS["causal"])[:42])


def test_every_sequence_of_a_large_batch_is_found() -> None:
    lengths = [1 + index % 3 for index in range(23)]
    heads = random_heads(sum(lengths))
    attended = attend_by_kernel(*heads, make_layout(lengths), PATTERNS["all"])
    torch.testing.assert_close(attended, by_group(*heads, make_layout(lengths), PATTERNS["all"]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ATTENTION_KERNELS)
def test_registered_kernel_equals_its_plain_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "choose_block_sizes", choose_block_sizes)
    kernel = ATTENTION_KERNELS[name]
    arguments = kernel.example(torch.device("cpu"), torch.float32)
    torch.testing.assert_close(kernel.fused(*arguments), kernel.plain(*arguments), atol=1e-4, rtol=1e-4)


class Launches:
    """Takes the place of the kernel and keeps what it was launched with."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, int]] = []

    def __getitem__(self, grid: tuple[int, int]) -> object:
        self.grids.append(grid)
        return lambda *_arguments, **_options: None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PATTERNS)
def test_attention_on_cuda_waits_for_no_number(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors have no content, so an operation that needs it raises an error."""
    launches = Launches()
    monkeypatch.setattr(attention, "attend_kernel", launches)
    monkeypatch.setattr(chosen, "runs_kernels", lambda _: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(chosen, "choose_kernel", chosen.choose_kernel.__wrapped__)
    with FakeTensorMode():
        query, key, value = torch.empty(40, 3, HEADS, HEAD_DIM, device="cuda", dtype=dtype).unbind(1)
        cu_seqlens = torch.empty(4, device="cuda", dtype=torch.int32)
        row_of_token = torch.empty(60, device="cuda", dtype=torch.int32)
        layout = Layout([20, 20, 20], [20, 4, 16], cu_seqlens, cu_seqlens.clone(), row_of_token)
        attended = attend(query, key, value, layout, PATTERNS[name])
    assert attended.shape == query.shape
    pattern = PATTERNS[name]
    is_ours = dtype == torch.float32 or pattern.bias is not None or pattern.softcap is not None
    assert launches.grids == ([(40 // BLOCK + 3, HEADS)] if is_ours else [])
