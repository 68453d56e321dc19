"""Chooses the model's prompt for an `input_type`, the field of Cohere, Voyage and NIM."""

from collections.abc import Iterable

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2

QUERY = ("search_query", "query", "retrieval.query", "s2p_query")
DOCUMENT = ("search_document", "document", "passage", "retrieval.passage")

# The prompt of an input type is the first of these names that the model has. Cohere's types come first.
PROMPTS_OF_INPUT_TYPE = {
    "search_query": QUERY,
    "search_document": DOCUMENT,
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
    "image": (),  # images are not supported, but texts to compare with images have this type too
    "query": ("query", *QUERY),
    "document": ("document", *DOCUMENT),
    "passage": ("passage", *DOCUMENT),
}


def prompt_of_type(input_type: str | None, model: model_pb2.Model) -> str:
    """The name of the prompt; "", the model's default, if it has none for this type. `input_type` may also be the name
    of a prompt. Raises INVALID_INPUT for any other."""
    if not input_type:
        return ""
    possible = dict.fromkeys((*PROMPTS_OF_INPUT_TYPE, *model.prompt_names))
    if input_type not in possible:
        message = f"input_type must be one of {', '.join(possible)}, not {input_type!r}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="input_type")
    names: Iterable[str] = PROMPTS_OF_INPUT_TYPE.get(input_type, (input_type,))
    return next((name for name in names if name in model.prompt_names), "")
