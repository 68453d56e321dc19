"""Constraints on texts, ids and lists that /openapi.json shows for the structs in this folder.

They are documentation only. The routes and the tokenizer pods check inputs and word the errors: an empty list is
another kind of failure than a wrong type, and the limit of inputs is a setting.
"""

from typing import Annotated, Any

import msgspec


def json_schema(**schema: Any) -> Any:
    return msgspec.Meta(extra_json_schema=schema)


Text = Annotated[str, json_schema(minLength=1)]
TokenId = Annotated[int, json_schema(minimum=0, maximum=2**32 - 1)]

# Constraints of lists.
Some = json_schema(minItems=1)
OneOrTwo = json_schema(minItems=1, maxItems=2)
