"""The inputs of requests, as the encoder takes them. Tasks call it."""

from collections.abc import Iterable

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.sequence import Input


def contents(inputs: Iterable[inference_pb2.Input]) -> list[Input]:
    """An input without content is an empty text."""
    return [item.text or item.token_ids or "" for item in inputs]


def check_not_empty(text: str, field: str) -> None:
    if not text:
        raise HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty", field=field)
