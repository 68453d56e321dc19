"""Encodes inputs and waits for all results, for tests that ignore how the encoder splits them."""

import asyncio
from collections.abc import Sequence

from tokenizer_svc.encoder import Encoder
from tokenizer_svc.text.inputs import INPUTS, FieldName, Input, Options
from tokenizer_svc.text.sequences import Result, TokenSequences


async def encode_inputs(
    encoder: Encoder, inputs: Sequence[Input], options: Options, *, field_of: FieldName = INPUTS
) -> list[Result]:
    """Cancelling the caller cancels the job."""
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
