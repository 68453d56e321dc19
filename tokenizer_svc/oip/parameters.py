"""The parameters of a ModelInfer request. Each sets a field of the heddle.v1 request. Called by `requests`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.oip.arrays import CONTENT_TYPE

TRUNCATION_SIDES = {
    "right": inference_pb2.TRUNCATION_SIDE_RIGHT,
    "left": inference_pb2.TRUNCATION_SIDE_LEFT,
}
AGGREGATIONS = {
    name.removeprefix("AGGREGATION_").lower(): number
    for name, number in inference_pb2.Aggregation.items()
    if number != inference_pb2.AGGREGATION_UNSPECIFIED
}
TYPE_NAMES = {bool: "a boolean", int: "a whole number", str: "a string"}


@dataclass(frozen=True, slots=True)
class Parameter:
    kind: type
    field: str
    convert: Callable[[Any], Any]  # raises ValueError


def same(value: Any) -> Any:
    return value


def to_truncation(truncate: bool) -> inference_pb2.Truncation:
    return inference_pb2.TRUNCATION_ALLOW if truncate else inference_pb2.TRUNCATION_REFUSE


def at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError(f"must be at least 1, not {value}")
    return value


def one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        if name not in values:
            raise ValueError(f"must be one of {', '.join(values)}, not {name!r}")
        return values[name]

    return find


PARAMETERS = {
    "truncate": Parameter(bool, "truncation", to_truncation),
    "truncation_side": Parameter(str, "truncation_side", one_of(TRUNCATION_SIDES)),
    "input_tokens_max": Parameter(int, "input_tokens_max", at_least_one),
    "document_tokens_max": Parameter(int, "document_tokens_max", at_least_one),
    "prompt_name": Parameter(str, "prompt_name", same),
    "task": Parameter(str, "task", same),
    "instruction": Parameter(str, "instruction", same),
    "normalize": Parameter(bool, "skip_normalization", lambda normalize: not normalize),
    "dimensions": Parameter(int, "dimensions", at_least_one),
    "raw_scores": Parameter(bool, "raw_scores", same),
    "aggregation": Parameter(str, "aggregation", one_of(AGGREGATIONS)),
}


def apply_parameters(target: Any, parameters: Mapping[str, oip.InferParameter]) -> None:
    """Sets fields of `target`, a request of heddle.v1. Raises INVALID_INPUT for an unknown parameter, for one that the
    request has no field for, and for an invalid value."""
    for name, value in parameters.items():
        if name == CONTENT_TYPE:
            continue
        parameter = PARAMETERS.get(name)
        fields = target.DESCRIPTOR.fields_by_name
        if parameter is None or parameter.field not in fields:
            taken = ", ".join(name for name, known in PARAMETERS.items() if known.field in fields)
            message = f"there is no parameter {name!r} for this request; it takes {taken}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=name)
        choice = value.WhichOneof("parameter_choice")
        stated = getattr(value, choice) if choice else None
        if type(stated) is not parameter.kind:
            raise HeddleError(ErrorKind.INVALID_INPUT, f"{name} must be {TYPE_NAMES[parameter.kind]}", field=name)
        try:
            setattr(target, parameter.field, parameter.convert(stated))
        except ValueError as error:  # also from protobuf, for a number that the field cannot hold
            raise HeddleError(ErrorKind.INVALID_INPUT, f"{name} {error}", field=name) from None
