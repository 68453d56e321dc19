"""The `meta` of Cohere's answers, used by all of its routes."""

from typing import Any

from heddle.v1 import item_pb2


def meta(version: str, usage: item_pb2.Usage | None = None, billed: dict[str, int] | None = None) -> dict[str, Any]:
    """`version` is the API's. `billed` replaces the tokens as billed units. Without `usage` there are no units."""
    about: dict[str, Any] = {"api_version": {"version": version}}
    if usage is None:
        return about
    return {
        **about,
        "billed_units": billed or {"input_tokens": usage.tokens},
        "tokens": {"input_tokens": usage.tokens, "output_tokens": 0},
    }
