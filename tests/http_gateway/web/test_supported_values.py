"""Fields that are supported in part: values that change nothing are accepted, others are refused with a remedy."""

from typing import Annotated, Any

import msgspec
import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from http_gateway.web.supported_values import check_supported, only


class Body(msgspec.Struct):
    text: str = ""
    late: Annotated[bool | None, only(False, instead="send parts")] = None
    chunks: Annotated[int | None, only(0, 1, instead="one will do")] = msgspec.field(default=None, name="max_chunks")
    images: Annotated[list[Any] | None, only([], instead="send texts")] = None


@pytest.mark.parametrize(
    "body", [{}, {"late": None}, {"late": False, "max_chunks": 1, "images": []}, {"max_chunks": 0}]
)
def test_values_that_change_nothing_are_accepted(body: dict[str, Any]) -> None:
    check_supported(msgspec.convert(body, Body))


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"late": True}, "late", "late must be false, or absent: send parts"),
        ({"max_chunks": 2}, "max_chunks", "max_chunks must be 0 or 1, or absent: one will do"),
        ({"images": ["data:"]}, "images", "images must be [], or absent: send texts"),
    ],
)
def test_other_values_are_refused_by_their_json_name(body: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(HeddleError) as refused:
        check_supported(msgspec.convert(body, Body))
    error = refused.value
    assert (error.kind, error.field, error.message) == (ErrorKind.INVALID_INPUT, field, message)


def test_the_schema_lists_the_supported_values() -> None:
    properties = msgspec.json.schema(Body)["$defs"]["Body"]["properties"]
    assert properties["late"]["enum"] == [False, None]
    assert "enum" not in properties["text"]


def test_bodies_that_are_not_structs_pass() -> None:
    check_supported(["anything"])
