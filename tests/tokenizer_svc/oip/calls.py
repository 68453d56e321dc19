"""Requests of the Open Inference Protocol, typed and raw, and the tensors of its answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.oip.v2.open_inference_grpc_pb2_grpc import GRPCInferenceServiceStub
from tests.tokenizer_svc.tei.served_model import ServedModel

Tensor = oip.ModelInferRequest.InferInputTensor
FIELDS = {"INT32": "int_contents", "INT64": "int64_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents"}
NUMBERS = {"FP32": ("<f4", "fp32_contents"), "UINT32": ("<u4", "uint_contents")}


def stub_of(model: ServedModel) -> Any:
    return GRPCInferenceServiceStub(model.channel)


def texts(name: str, *elements: str, shape: Sequence[int] | None = None) -> Tensor:
    contents = oip.InferTensorContents(bytes_contents=[element.encode() for element in elements])
    return Tensor(name=name, datatype="BYTES", shape=shape or [len(elements)], contents=contents)


def integers(name: str, rows: Sequence[Sequence[int]], datatype: str = "INT64") -> Tensor:
    flat = [number for row in rows for number in row]
    contents = oip.InferTensorContents(**{FIELDS[datatype]: flat})  # type: ignore[arg-type]
    return Tensor(name=name, datatype=datatype, shape=[len(rows), len(rows[0])], contents=contents)


def infer(*inputs: Tensor, raw: bool = False, outputs: Sequence[str] = (), **parameters: bool | int | str) -> Any:
    request = oip.ModelInferRequest(model_name="small", id="7", inputs=inputs)
    for name, value in parameters.items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], field, value)
    request.outputs.extend([oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs])
    if raw:
        request.raw_input_contents.extend(map(to_raw, inputs))
        for tensor in request.inputs:
            tensor.ClearField("contents")
    return request


def to_raw(tensor: Tensor) -> bytes:
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        return b"".join(len(one).to_bytes(4, "little") + one for one in contents.bytes_contents)
    kind = {"INT32": "<i4", "INT64": "<i8", "UINT32": "<u4", "UINT64": "<u8"}[tensor.datatype]
    return np.array(getattr(contents, FIELDS[tensor.datatype]), kind).tobytes()


def array(response: Any, name: str) -> npt.NDArray[Any]:
    """The output of this name, which is FP32 or UINT32, in its shape."""
    (index,) = (index for index, output in enumerate(response.outputs) if output.name == name)
    output = response.outputs[index]
    kind, field = NUMBERS[output.datatype]
    if response.raw_output_contents:
        assert not output.HasField("contents")
        flat = np.frombuffer(response.raw_output_contents[index], kind)
    else:
        flat = np.array(getattr(output.contents, field), kind)
    return flat.reshape(tuple(output.shape))
