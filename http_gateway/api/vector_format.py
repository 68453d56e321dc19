"""The data type and encoding of vectors that a request asks for, under the names of OpenAI, Jina, Voyage and vLLM."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from heddle import tensors
from heddle.v1 import tensor_pb2
from http_gateway.api.request_fields import CommonFields, merge_aliases

# The data type of the contract and the NumPy type of its bytes, by name.
QUANTIZED: dict[str, tuple[tensor_pb2.DataType, np.dtype[Any]]] = {
    "int8": (tensor_pb2.DATA_TYPE_INT8, np.dtype(np.int8)),
    "uint8": (tensor_pb2.DATA_TYPE_UINT8, np.dtype(np.uint8)),
    "binary": (tensor_pb2.DATA_TYPE_BINARY, np.dtype(np.int8)),
    "ubinary": (tensor_pb2.DATA_TYPE_UBINARY, np.dtype(np.uint8)),
}

FLOATS = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb2.DATA_TYPE_BFLOAT16,
}


# msgspec takes two thirds of the time of Python's base64 module.
encode_base64: Callable[[memoryview], str] = msgspec.to_builtins


class VectorFormat(NamedTuple):
    data_type: tensor_pb2.DataType
    is_base64: bool
    integers: np.dtype[Any] | None  # None for floats

    def rows(self, table: tensor_pb2.Tensor) -> Callable[[int], Any]:
        """A function from the index of a vector to its value in the answer. `table` has this data type."""
        if not self.is_base64 and self.integers is None:
            return tensors.from_proto(table).__getitem__
        data = memoryview(table.data)  # each access to the field copies it
        row_bytes = len(data) // table.shape[0]
        convert = encode_base64 if self.is_base64 else partial(np.frombuffer, dtype=self.integers)
        return lambda index: convert(data[index * row_bytes : (index + 1) * row_bytes])


PLAIN = VectorFormat(tensor_pb2.DATA_TYPE_FLOAT32, False, None)
BASE64 = VectorFormat(tensor_pb2.DATA_TYPE_FLOAT32, True, None)


class VectorFormatFields(CommonFields, kw_only=True):
    """Null is the same as absent."""

    encoding_format: Literal["float", "base64"] | None = None
    embedding_type: Literal["float", "base64", "int8", "uint8", "binary", "ubinary"] | None = None  # Jina's and NIM's
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] | None = None  # Voyage's
    # vLLM's, for base64 only.
    embed_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    endianness: Literal["native", "little"] | None = None

    @property
    def format(self) -> VectorFormat:
        """Raises INVALID_INPUT for fields that contradict each other."""
        is_base64 = "base64" in (self.encoding_format, self.embedding_type)
        if not (self.embedding_type or self.output_dtype or self.embed_dtype):
            return BASE64 if is_base64 else PLAIN
        aliases: dict[str, Any] = {"embedding_type": self.embedding_type, "output_dtype": self.output_dtype}
        if self.embedding_type == "base64":
            merge_aliases({"encoding_format": self.encoding_format, "embedding_type": self.embedding_type})
            aliases["embedding_type"] = None
        name = merge_aliases(aliases)
        if name in QUANTIZED:
            merge_aliases({**aliases, "embed_dtype": self.embed_dtype})
            data_type, integers = QUANTIZED[name]
            return VectorFormat(data_type, is_base64, integers)
        return VectorFormat(FLOATS[self.embed_dtype or "float32"], True, None) if is_base64 else PLAIN
