"""What /openapi.json says of texts, ids and lists beyond their types, for the structs in this folder.

It is only told here. What is refused, and in which words, is decided where the inputs are looked at, by the routes and
by the tokenizer pods: an empty list is a failure of another kind than a wrong type, and the limit of inputs is a
setting.
"""

from typing import Annotated, Any

import msgspec


def json_schema(**schema: Any) -> Any:
    return msgspec.Meta(extra_json_schema=schema)


Text = Annotated[str, json_schema(minLength=1)]
TokenId = Annotated[int, json_schema(minimum=0, maximum=2**32 - 1)]

# Of a list.
Some = json_schema(minItems=1)
OneOrTwo = json_schema(minItems=1, maxItems=2)
