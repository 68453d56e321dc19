"""The encoder refuses at once requests that it could not tokenize in time."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from tests.tokenizer_svc.parity import load_parity
from tests.tokenizer_svc.test_encoder import LONG, OPTIONS
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.sequences import TokenSequences
from tokenizer_svc.text.tokenizer import Tokenizer


def ignore(start: int, sequences: TokenSequences) -> None:
    pass


class Slow:
    """A tokenizer that takes 10 ms for each slice."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]:
        time.sleep(0.01)
        return self.tokenizer.encode(work)


async def until_measured(encoder: Encoder) -> None:
    async with asyncio.timeout(5):
        while not encoder._admission.throughput.is_known(time.monotonic()):
            await asyncio.sleep(0.001)


async def test_requests_that_could_not_be_tokenized_in_time_are_refused() -> None:
    encoder = Encoder(Slow(load_parity("word_piece").ours), slice_bytes_max=1024, queue_s_max=60.0)
    encoder.submit([LONG] * 300, OPTIONS, ignore, flow="caller")
    await until_measured(encoder)
    with pytest.raises(HeddleError) as caught:
        encoder.submit([LONG] * 300, OPTIONS, ignore, flow="caller", deadline=time.monotonic() + 0.5)
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_ms > 0
    assert encoder.counts.refused == {"queue_full": 0, "too_late": 1}
    job = encoder.submit([LONG] * 300, OPTIONS, ignore, flow="caller", deadline=time.monotonic() + 300)
    encoder.submit(["short"], OPTIONS, ignore, flow="other", deadline=time.monotonic() + 2)
    encoder.cancel(job)
    await encoder.close()
    assert encoder.waiting_bytes == encoder._jobs.weight == 0
