"""Reads and writes tensors of the Open Inference Protocol, with typed or raw contents. Called by `requests` and
`answers`.

Raw contents are little-endian and row-major. Each element of a raw BYTES tensor begins with its length as a uint32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.message_bytes import varint

# MLServer's clients mark texts with this parameter. It has no effect here.
CONTENT_TYPE = "content_type"

LENGTH_BYTES = 4
FP32_CONTENTS = b"\x32"  # the tag of InferTensorContents.fp32_contents, packed

Ids = npt.NDArray[np.uint32]
InferInput = oip.ModelInferRequest.InferInputTensor

# By data type: the numpy type of the elements, and the field of InferTensorContents that holds them.
INTEGERS: dict[str, tuple[Any, str]] = {
    "INT32": (np.dtype("<i4"), "int_contents"),
    "INT64": (np.dtype("<i8"), "int64_contents"),
    "UINT32": (np.dtype("<u4"), "uint_contents"),
    "UINT64": (np.dtype("<u8"), "uint64_contents"),
}


@dataclass(frozen=True, slots=True)
class InputTensor:
    """A tensor of a request, with its raw contents if the request has them."""

    message: InferInput
    raw: bytes | None

    @property
    def name(self) -> str:
        return self.message.name

    def texts(self) -> list[str]:
        """All elements of a BYTES tensor, row-major. Raises INVALID_INPUT."""
        if self.message.datatype != "BYTES":
            raise self.invalid(f"must be of the data type BYTES, not {self.message.datatype!r}")
        elements = self.message.contents.bytes_contents if self.raw is None else self._split(self.raw)
        self._check_count(len(elements))
        try:
            return [element.decode() for element in elements]
        except UnicodeDecodeError as error:
            raise self.invalid(f"has an element that is not UTF-8: {error}") from None

    def rows(self) -> list[list[str]]:
        """The texts of a tensor with two dimensions. Raises INVALID_INPUT."""
        texts, width = self.texts(), self.message.shape[1]
        return [texts[start : start + width] for start in range(0, len(texts), width)]

    def column(self) -> list[str]:
        """The texts of a tensor that is one row or one column. Raises INVALID_INPUT."""
        if sum(size != 1 for size in self.message.shape) > 1:
            raise self.invalid(f"must be one row or one column of texts, not {list(self.message.shape)}")
        return self.texts()

    def integers(self) -> Ids:
        """The elements of an integer tensor with two dimensions. Raises INVALID_INPUT, also for negative ones."""
        if self.message.datatype not in INTEGERS:
            raise self.invalid(f"must be of a data type among {', '.join(INTEGERS)}, not {self.message.datatype!r}")
        if len(self.message.shape) != 2:
            raise self.invalid(f"must have two dimensions, not {len(self.message.shape)}")
        kind, field = INTEGERS[self.message.datatype]
        if self.raw is None:
            numbers = getattr(self.message.contents, field)
            self._check_count(len(numbers))
            elements = np.array(numbers, kind)
        elif len(self.raw) % kind.itemsize:
            raise self.invalid(f"has {len(self.raw)} bytes, which is not a multiple of {kind.itemsize}")
        else:
            elements = np.frombuffer(self.raw, kind)
            self._check_count(len(elements))
        if not 0 <= elements.min() <= elements.max() < 2**32:
            raise self.invalid("has elements that are not token ids")
        return elements.astype(np.uint32).reshape(tuple(self.message.shape))

    def invalid(self, problem: str) -> HeddleError:
        return HeddleError(ErrorKind.INVALID_INPUT, f"the input {self.name} {problem}", field=self.name)

    def check_size(self, inputs_max: int) -> None:
        """Bounds the number of elements before they are read, because a short message can claim millions. The task
        checks the number of inputs exactly. Raises INVALID_INPUT."""
        shape = self.message.shape
        if min(shape, default=1) < 1:
            raise self.invalid(f"has the shape {list(shape)}; no size may be below 1")
        count = math.prod(shape) / 2 if self.message.datatype == "BYTES" else math.prod(shape[:1])  # texts may be pairs
        if count > inputs_max:
            raise self.invalid(f"has the shape {list(shape)}; a request may have at most {inputs_max} inputs")

    def _check_count(self, count: int) -> None:
        shape = self.message.shape
        if math.prod(shape) != count:
            raise self.invalid(f"has {count} elements, which do not make the shape {list(shape)}")

    def _split(self, raw: bytes) -> list[bytes]:
        elements, start, count = list[bytes](), 0, math.prod(self.message.shape)
        while start < len(raw):
            if len(elements) == count:
                raise self.invalid(f"has more elements than its shape, {list(self.message.shape)}")
            end = start + LENGTH_BYTES + int.from_bytes(raw[start : start + LENGTH_BYTES], "little")
            if end > len(raw):
                raise self.invalid("has raw contents that end inside an element")
            elements.append(raw[start + LENGTH_BYTES : end])
            start = end
        return elements


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A result. `data` is raw, or the elements of a BYTES tensor."""

    name: str
    datatype: str  # FP32, UINT32 or BYTES
    shape: tuple[int, ...]
    data: bytes | Sequence[bytes]

    def raw(self) -> bytes:
        if isinstance(self.data, bytes):
            return self.data
        return b"".join([part for one in self.data for part in (len(one).to_bytes(LENGTH_BYTES, "little"), one)])

    def contents(self) -> oip.InferTensorContents:
        if not isinstance(self.data, bytes):
            return oip.InferTensorContents(bytes_contents=self.data)
        if self.datatype == "UINT32":
            return oip.InferTensorContents(uint_contents=np.frombuffer(self.data, "<u4").tolist())
        # On the wire the field is a tag, a length and the same bytes. Passing Python numbers takes 15 times as long.
        return oip.InferTensorContents.FromString(FP32_CONTENTS + varint(len(self.data)) + self.data)


def read_inputs(request: oip.ModelInferRequest, inputs_max: int) -> dict[str, InputTensor]:
    """The request's tensors by name. Raises INVALID_INPUT."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        message = f"the request has {len(request.inputs)} inputs and {len(raw)} raw_input_contents"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="raw_input_contents")
    inputs: dict[str, InputTensor] = {}
    for index, tensor_message in enumerate(request.inputs):
        tensor = InputTensor(tensor_message, raw[index] if raw else None)
        if raw and tensor_message.HasField("contents"):
            raise tensor.invalid("has contents beside raw_input_contents")
        if tensor.name in inputs:
            raise tensor.invalid("occurs twice")
        tensor.check_size(inputs_max)
        if unknown := set(tensor_message.parameters) - {CONTENT_TYPE}:
            raise tensor.invalid(f"has unknown parameters: {', '.join(sorted(unknown))}")
        inputs[tensor.name] = tensor
    return inputs
