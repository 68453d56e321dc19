"""Encodes inputs with a tokenizer or an encoder, and reads the ids of the results."""

import asyncio
from collections.abc import Sequence

from tokenizer_svc.encoder import Encoder
from tokenizer_svc.text.inputs import INPUTS, FieldName, Input, Options
from tokenizer_svc.text.sequences import Result, TokenSequence, TokenSequences
from tokenizer_svc.text.tokenizer import Tokenizer

DEFAULTS = Options()


def encode_one(tokenizer: Tokenizer, content: Input, options: Options = DEFAULTS) -> Result:
    [[result]] = tokenizer.encode([([content], options)])
    return result


def read_ids(result: Result) -> list[int]:
    assert isinstance(result, TokenSequence), result
    return memoryview(result.token_ids).cast("I").tolist()


async def encode_inputs(
    encoder: Encoder, inputs: Sequence[Input], options: Options, *, field_of: FieldName = INPUTS
) -> list[Result]:
    """Waits for all results, in however many slices they come. Cancelling the caller cancels the job."""
    results: list[Result] = []
    done = asyncio.Event()

    def gather(_: int, sequences: TokenSequences) -> None:
        results.extend(sequences)
        if len(results) == len(inputs):
            done.set()

    job = encoder.submit(inputs, options, gather, field_of=field_of)
    try:
        await done.wait()
    finally:
        encoder.cancel(job)
    return results
