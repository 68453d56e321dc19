"""The texts of requests, looked at before any work is done with them. Every task calls it."""

from collections.abc import Iterable

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.sequence import INPUTS, FieldOf, Input


def contents(inputs: Iterable[inference_pb2.Input]) -> list[Input]:
    """An input without content is an empty text. Raises INVALID_INPUT for a text that is no text."""
    found: list[Input] = [item.text or item.token_ids or "" for item in inputs]
    for index, content in enumerate(found):
        if isinstance(content, str) and "\0" in content:
            check_text(content, f"inputs[{index}]")
    return found


def check_text(text: str, field: str) -> None:
    """Raises INVALID_INPUT for a text with a NUL, which is binary data or the end of a string of C."""
    if "\0" in text:
        raise HeddleError(ErrorKind.INVALID_INPUT, "the text has a NUL character", field=field)


def check_texts(texts: Iterable[str], field_of: FieldOf = INPUTS) -> None:
    for index, text in enumerate(texts):
        if "\0" in text:
            check_text(text, field_of(index))


def check_not_empty(text: str, field: str) -> None:
    if not text:
        raise HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty", field=field)
