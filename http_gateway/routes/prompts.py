"""The prompt that a model has for a kind of input, which Cohere, Voyage and NIM name by `input_type`."""

from collections.abc import Iterable

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import model_pb2

QUERY = ("search_query", "query", "retrieval.query", "s2p_query")
DOCUMENT = ("search_document", "document", "passage", "retrieval.passage")

# The prompt of an input type is the first of these that the model has. Cohere's types come first, then those of others.
PROMPTS_OF_INPUT_TYPE = {
    "search_query": QUERY,
    "search_document": DOCUMENT,
    "classification": ("classification",),
    "clustering": ("clustering", "separation"),
    "image": (),  # images are not taken, but a text may be meant for comparison with them
    "query": ("query", *QUERY),
    "document": ("document", *DOCUMENT),
    "passage": ("passage", *DOCUMENT),
}


def prompt_of_type(input_type: str | None, model: model_pb2.Model) -> str:
    """Of the model's prompts; "", which is its default, where it has none for such inputs. An input type may also be
    the name of a prompt itself. Raises INVALID_INPUT for any other."""
    if not input_type:
        return ""
    possible = dict.fromkeys((*PROMPTS_OF_INPUT_TYPE, *model.prompt_names))
    if input_type not in possible:
        message = f"input_type: there is no {input_type!r}, it is one of {', '.join(possible)}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="input_type")
    names: Iterable[str] = PROMPTS_OF_INPUT_TYPE.get(input_type, (input_type,))
    return next((name for name in names if name in model.prompt_names), "")
