"""Reads the inputs of requests. The tasks call it."""

from collections.abc import Sequence
from operator import attrgetter

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.text.inputs import Input, TokenizedInput, indexed_field

TOKENIZED_INPUTS = indexed_field("tokenized_inputs")
get_text = attrgetter("text")


def to_inputs(inputs: Sequence[inference_pb2.Input]) -> list[Input]:
    """Texts or token ids. An input without content is an empty text."""
    texts: list[Input] = list(map(get_text, inputs))
    return texts if all(texts) else [text or item.token_ids or "" for text, item in zip(texts, inputs, strict=True)]


def to_tokenized(item: inference_pb2.TokenizedInput) -> TokenizedInput:
    return TokenizedInput(item.token_ids, item.type_ids)


def check_not_empty(text: str, field: str) -> None:
    if not text:
        raise HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty", field=field)


def check_no_text(*texts: str | Sequence[str], field: str) -> None:
    """Raises INVALID_INPUT for texts beside the token ids in `field`."""
    if any(texts):
        raise HeddleError(ErrorKind.INVALID_INPUT, "texts and token ids cannot both be given", field=field)
