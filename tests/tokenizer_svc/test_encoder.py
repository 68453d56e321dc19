"""The encoder tokenizes waiting texts in one call, lets requests take turns, and gives each input its own result."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle.rpc.errors import ErrorKind, HeddleError
from tests.tokenizer_svc.encoding import encode_inputs
from tests.tokenizer_svc.parity import load_parity
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.text.inputs import TEXT_BYTES, Input, Options, indexed_field, measure_size, measure_sizes
from tokenizer_svc.text.sequences import Result, TokenSequence, TokenSequences
from tokenizer_svc.text.tokenizer import Tokenizer

OPTIONS = Options()
LONG = "a long enough text to leave the loop for " * 20


class Watched:
    """A tokenizer with a record of its calls, which wait while the gate is closed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.calls: list[list[Input]] = []
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]:
        self.calls.append([content for inputs, _ in work for content in inputs])
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(10)
        if self.broken:
            raise RuntimeError("a bug")
        return self.tokenizer.encode(work)


class Inbox:
    """Collects the results of a job."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.results: list[Result] = []

    def take(self, start: int, sequences: TokenSequences) -> None:
        assert start == len(self.results)
        self.starts.append(start)
        self.results += sequences


@pytest.fixture
def tokenizer() -> Watched:
    return Watched(load_parity("word_piece").ours)


@pytest.fixture
async def encoder(tokenizer: Watched) -> AsyncIterator[Encoder]:
    encoder = Encoder(tokenizer, waiting_bytes_max=100_000)
    yield encoder
    tokenizer.gate.set()
    await encoder.close()
    assert encoder.waiting_bytes == encoder.running_bytes == 0


async def until_called(tokenizer: Watched, calls: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(tokenizer.calls) < calls:
            await asyncio.sleep(0.001)


async def until_done(inbox: Inbox, count: int) -> None:
    async with asyncio.timeout(5):
        while len(inbox.results) < count:
            await asyncio.sleep(0.001)


def expected(tokenizer: Watched, inputs: Sequence[Input]) -> list[Result]:
    return [result for content in inputs for [result] in tokenizer.tokenizer.encode([([content], OPTIONS)])]


async def test_results_come_in_order(encoder: Encoder, tokenizer: Watched) -> None:
    inputs: list[Input] = [f"{LONG} {index}" for index in range(90)]
    assert await encode_inputs(encoder, inputs, OPTIONS) == expected(tokenizer, inputs)
    assert len(tokenizer.calls) > 1


async def test_waiting_texts_are_encoded_in_one_call(encoder: Encoder, tokenizer: Watched) -> None:
    texts = [f"text {index}" for index in range(50)]
    results = await asyncio.gather(*(encode_inputs(encoder, [text], OPTIONS) for text in texts))
    assert [result for (result,) in results] == expected(tokenizer, texts)
    assert tokenizer.calls == [texts]


async def test_texts_that_arrive_during_a_call_share_the_next(encoder: Encoder, tokenizer: Watched) -> None:
    tokenizer.gate.clear()
    first = asyncio.create_task(encode_inputs(encoder, [LONG], OPTIONS))
    await until_called(tokenizer)
    others = [asyncio.create_task(encode_inputs(encoder, [f"text {index}"], OPTIONS)) for index in range(5)]
    await asyncio.sleep(0)
    tokenizer.gate.set()
    await asyncio.gather(first, *others)
    assert [len(call) for call in tokenizer.calls] == [1, 5]


async def test_a_short_request_overtakes_a_long_one(tokenizer: Watched) -> None:
    encoder = Encoder(tokenizer, slice_bytes_max=4096)
    long, short = Inbox(), Inbox()
    encoder.submit([LONG] * 200, OPTIONS, long.take)
    await until_done(long, 1)
    encoder.submit(["short"], OPTIONS, short.take)
    await until_done(short, 1)
    assert len(long.results) < 200
    await until_done(long, 200)
    await encoder.close()


async def test_the_first_texts_are_delivered_while_later_ones_wait(tokenizer: Watched) -> None:
    encoder = Encoder(tokenizer, slice_bytes_max=4096)
    inbox = Inbox()
    encoder.submit([LONG] * 20, OPTIONS, inbox.take)
    await until_called(tokenizer, 1)
    tokenizer.gate.clear()
    await until_done(inbox, 1)
    assert len(inbox.results) < 20
    assert encoder.waiting_bytes > 0
    tokenizer.gate.set()
    await until_done(inbox, 20)
    assert len(inbox.starts) > 1
    await encoder.close()


async def test_the_loop_runs_on_while_texts_are_encoded(encoder: Encoder, tokenizer: Watched) -> None:
    tokenizer.gate.clear()
    task = asyncio.create_task(encode_inputs(encoder, [LONG], OPTIONS))
    await until_called(tokenizer)
    assert encoder.running_bytes == measure_size(LONG)
    assert not task.done()
    tokenizer.gate.set()
    await task


async def test_only_tiny_slices_are_encoded_on_the_loop(encoder: Encoder, tokenizer: Watched) -> None:
    await encode_inputs(encoder, ["tiny"], OPTIONS)
    await encode_inputs(encoder, [LONG], OPTIONS)
    assert tokenizer.threads[0] == threading.current_thread().name
    assert tokenizer.threads[1].startswith("tokenizer")


async def test_a_cancelled_job_is_neither_encoded_nor_delivered(encoder: Encoder, tokenizer: Watched) -> None:
    tokenizer.gate.clear()
    inbox, other = Inbox(), Inbox()
    job = encoder.submit([LONG] * 60, OPTIONS, inbox.take)
    await until_called(tokenizer)
    encoder.submit(["other"], OPTIONS, other.take)
    encoder.cancel(job)
    assert encoder.waiting_bytes == measure_size("other")
    tokenizer.gate.set()
    await until_done(other, 1)
    assert tokenizer.calls[1:] == [["other"]]
    assert inbox.results == []


async def test_a_caller_that_leaves_frees_its_bytes(encoder: Encoder, tokenizer: Watched) -> None:
    tokenizer.gate.clear()
    first = asyncio.create_task(encode_inputs(encoder, [LONG], OPTIONS))
    await until_called(tokenizer)
    second = asyncio.create_task(encode_inputs(encoder, [LONG], OPTIONS))
    await asyncio.sleep(0)
    assert encoder.waiting_bytes == measure_size(LONG)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert encoder.waiting_bytes == 0
    tokenizer.gate.set()
    await first
    assert len(tokenizer.calls) == 1


async def test_requests_over_the_limit_are_refused_at_once(encoder: Encoder, tokenizer: Watched) -> None:
    tokenizer.gate.clear()
    first = asyncio.create_task(encode_inputs(encoder, [LONG], OPTIONS))
    await until_called(tokenizer)
    waiting = asyncio.create_task(encode_inputs(encoder, ["x" * 90_000], OPTIONS))
    await asyncio.sleep(0)
    with pytest.raises(HeddleError) as caught:
        await encode_inputs(encoder, ["y" * 20_000], OPTIONS)
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_ms > 0
    tokenizer.gate.set()
    assert len(await first) == len(await waiting) == 1


async def test_one_request_over_the_limit_runs_if_nothing_else_waits(encoder: Encoder) -> None:
    (result,) = await encode_inputs(encoder, ["x" * 200_000], OPTIONS)
    assert isinstance(result, TokenSequence)


async def test_errors_name_their_input_and_leave_the_others_alone(encoder: Encoder, tokenizer: Watched) -> None:
    good, bad = await encode_inputs(encoder, ["fine", ""], OPTIONS, field_of=indexed_field("documents"))
    assert [good] == expected(tokenizer, ["fine"])
    assert isinstance(bad, HeddleError)
    assert (bad.kind, bad.field) == (ErrorKind.EMPTY_INPUT, "documents[1]")


@pytest.mark.parametrize("text", ["tiny", LONG])
async def test_a_bug_fails_the_texts_of_its_call_and_none_later(
    encoder: Encoder, tokenizer: Watched, text: str
) -> None:
    tokenizer.broken = True
    (failed,) = await encode_inputs(encoder, [text], OPTIONS)
    assert isinstance(failed, HeddleError)
    assert (failed.kind, failed.message) == (ErrorKind.INTERNAL, "internal error")
    tokenizer.broken = False
    assert await encode_inputs(encoder, [text], OPTIONS) == expected(tokenizer, [text])


async def test_a_callback_that_fails_affects_no_other_request(
    encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_start: int, _sequences: TokenSequences) -> None:
        raise RuntimeError("a bug")

    inbox = Inbox()
    encoder.submit(["a"], OPTIONS, fail)
    encoder.submit(["b"], OPTIONS, inbox.take)
    await until_done(inbox, 1)
    assert "the callback for tokens failed" in caplog.text


async def test_close_finishes_the_call_and_answers_the_rest(encoder: Encoder, tokenizer: Watched) -> None:
    tokenizer.gate.clear()
    running = asyncio.create_task(encode_inputs(encoder, [LONG] * 60, OPTIONS))
    await until_called(tokenizer)
    waiting = asyncio.create_task(encode_inputs(encoder, ["waits"], OPTIONS))
    await asyncio.sleep(0)
    closing = asyncio.create_task(encoder.close())
    await asyncio.sleep(0)
    tokenizer.gate.set()
    await closing
    done, taken = await running, len(tokenizer.calls[0])
    assert done[:taken] == expected(tokenizer, [LONG] * taken)
    refused = [*done[taken:], *(await waiting)]
    assert refused
    assert all(isinstance(result, HeddleError) and result.kind is ErrorKind.UNAVAILABLE for result in refused)
    with pytest.raises(HeddleError, match="shutting down"):
        await encode_inputs(encoder, ["late"], OPTIONS)


async def test_other_work_runs_on_the_same_thread_under_the_same_limit(encoder: Encoder, tokenizer: Watched) -> None:
    assert (await encoder.run(lambda: threading.current_thread().name, 10)).startswith("tokenizer")
    tokenizer.gate.clear()
    task = asyncio.create_task(encoder.run(tokenizer.gate.wait, 90_000))
    await asyncio.sleep(0)
    with pytest.raises(HeddleError) as caught:
        await encoder.run(lambda: None, 20_000)
    assert caught.value.kind is ErrorKind.OVERLOADED
    tokenizer.gate.set()
    assert await task


def test_sizes_are_utf8_bytes() -> None:
    sizes: dict[Input, int] = {
        "añ字🎉": len("añ字🎉".encode()) + TEXT_BYTES,
        "\ud800": 3 + TEXT_BYTES,
        ("ab", "c"): 3 + 2 * TEXT_BYTES,
        ("ñ", ""): 2 + 2 * TEXT_BYTES,
        b"\0" * 8: 8 + TEXT_BYTES,
    }
    assert measure_sizes(list(sizes)) == list(sizes.values())
    for kind in (str, tuple, bytes):
        alike = [content for content in sizes if isinstance(content, kind)]
        assert measure_sizes(alike) == [sizes[content] for content in alike]


@settings(max_examples=50, deadline=None)
@given(
    jobs=st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=12), min_size=1, max_size=8),
    budget=st.integers(1, 6000),
)
def test_every_input_is_encoded_once_in_order_and_within_the_budget(jobs: list[list[int]], budget: int) -> None:
    requests = [[f"{job}.{index}" + "x" * size for index, size in enumerate(sizes)] for job, sizes in enumerate(jobs)]
    tokenizer = Watched(load_parity("word_piece").ours)

    async def run_all() -> list[list[Result]]:
        encoder = Encoder(tokenizer, slice_bytes_max=budget)
        results = await asyncio.gather(*(encode_inputs(encoder, request, OPTIONS) for request in requests))
        await encoder.close()
        return results

    assert asyncio.run(run_all()) == [expected(tokenizer, request) for request in requests]
    taken = [content for call in tokenizer.calls for content in call]
    assert sorted(taken, key=str) == sorted((text for request in requests for text in request), key=str)
    assert all(len(call) == 1 or sum(map(measure_size, call)) <= budget for call in tokenizer.calls)
