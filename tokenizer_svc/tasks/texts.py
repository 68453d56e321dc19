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
            raise has_nul(INPUTS(index))
    return found


def check_texts(texts: Iterable[str], field_of: FieldOf = INPUTS) -> None:
    """As `check_text`, for each of them."""
    for index, text in enumerate(texts):
        if "\0" in text:
            raise has_nul(field_of(index))


def check_text(text: str, field: str) -> None:
    """Raises INVALID_INPUT for a text with a NUL, which is binary data or the end of a string of C."""
    if "\0" in text:
        raise has_nul(field)


def has_nul(field: str) -> HeddleError:
    return HeddleError(ErrorKind.INVALID_INPUT, "the text has a NUL character", field=field)


def check_not_empty(text: str, field: str) -> None:
    if not text:
        raise HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty", field=field)
