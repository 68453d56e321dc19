"""The task of `Embed`: texts to one vector each. Pure; the edge plans with it, a gathering runs the plan."""

from collections.abc import Iterable

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2, item_pb2, tensor_pb2
from tokenizer_svc.sequence import Input, Options
from tokenizer_svc.tasks.gathering import Outcomes, Plan

DATA_TYPES = frozenset(tensor_pb2.DataType.values())


def plan(request: inference_pb2.EmbedRequest, options: Options, dimension: int) -> Plan:
    """`dimension` is the model's. Raises HeddleError for a request that names what there is not."""
    if request.dimensions > dimension:
        message = f"dimensions is {request.dimensions}, but the model's vectors have {dimension}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="dimensions")
    if request.data_type not in DATA_TYPES:
        raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no data type {request.data_type}", field="data_type")
    return Plan(
        inputs=contents(request.inputs),
        options=options,
        assemble=assembled,
        field="inputs",
        output=engine_pb2.OUTPUT_VECTOR,
        skip_normalization=request.skip_normalization,
        dimensions=request.dimensions,
        data_type=request.data_type or tensor_pb2.DATA_TYPE_FLOAT32,
    )


def contents(inputs: Iterable[inference_pb2.Input]) -> list[Input]:
    """An input without content is an empty text. Raises INVALID_INPUT for a text that is no text."""
    found: list[Input] = [item.text or item.token_ids or "" for item in inputs]
    for index, content in enumerate(found):
        if isinstance(content, str) and "\0" in content:
            raise HeddleError(ErrorKind.INVALID_INPUT, "the text has a NUL character", field=f"inputs[{index}]")
    return found


def assembled(outcomes: Outcomes, usage: item_pb2.Usage, timings: item_pb2.Timings) -> inference_pb2.InferenceOutcome:
    """Rows in the order of the inputs."""
    first = outcomes[0].tensor
    embeddings = tensor_pb2.Tensor(
        data_type=first.data_type,
        shape=(len(outcomes), *first.shape),
        data=b"".join(outcome.tensor.data for outcome in outcomes),
    )
    response = inference_pb2.EmbedResponse(embeddings=embeddings, usage=usage, timings=timings)
    return inference_pb2.InferenceOutcome(embed=response)
