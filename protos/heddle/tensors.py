"""Converts arrays to and from the messages of tensor.proto. Used by all services and the client."""

import functools
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from heddle.v1 import tensor_pb2

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.integer]


def to_proto(array: Floats, data_type: tensor_pb2.DataType = tensor_pb2.DATA_TYPE_FLOAT32) -> tensor_pb2.Tensor:
    """Encodes an array in a data type (see DataType in tensor.proto)."""
    tensor = tensor_pb2.Tensor()
    fill(tensor, array, data_type)
    return tensor


def fill(tensor: tensor_pb2.Tensor, array: Floats, data_type: tensor_pb2.DataType) -> None:
    """Encodes an array into an empty tensor, such as one inside a message."""
    tensor.data_type = data_type or tensor_pb2.DATA_TYPE_FLOAT32
    tensor.shape.extend(array.shape)
    tensor.data = encode(array, tensor.data_type)


def encode(array: Floats, data_type: tensor_pb2.DataType) -> bytes:
    match data_type:
        case tensor_pb2.DATA_TYPE_FLOAT32:
            return array.astype("<f4", copy=False).tobytes()
        case tensor_pb2.DATA_TYPE_FLOAT16:
            return array.astype("<f2").tobytes()
        case tensor_pb2.DATA_TYPE_BFLOAT16:
            return bfloat16_bits(array).tobytes()
        case tensor_pb2.DATA_TYPE_INT8:
            return to_int8(array).astype(np.int8).tobytes()
        case tensor_pb2.DATA_TYPE_UINT8:
            return (to_int8(array) + 128).astype(np.uint8).tobytes()
        case tensor_pb2.DATA_TYPE_BINARY:
            return (np.packbits(array > 0, axis=-1).astype(np.int16) - 128).astype(np.int8).tobytes()
        case tensor_pb2.DATA_TYPE_UBINARY:
            return np.packbits(array > 0, axis=-1).tobytes()
        case _:
            raise ValueError(f"not a data type: {data_type}")


@functools.lru_cache(1024)  # a caller chooses the dimensions
def row_bytes(dimension: int, data_type: tensor_pb2.DataType) -> int:
    """The number of bytes of one encoded row."""
    return len(encode(np.zeros(dimension, np.float32), data_type))


def from_proto(tensor: tensor_pb2.Tensor) -> Floats:
    """Decodes to float32 of the tensor's shape: a view if the tensor is float32. BINARY and UBINARY give -1 and 1."""
    shape = tuple(tensor.shape)
    match tensor.data_type:
        case tensor_pb2.DATA_TYPE_FLOAT32 | tensor_pb2.DATA_TYPE_UNSPECIFIED:
            return np.frombuffer(tensor.data, "<f4").reshape(shape)
        case tensor_pb2.DATA_TYPE_FLOAT16:
            return np.frombuffer(tensor.data, "<f2").astype(np.float32).reshape(shape)
        case tensor_pb2.DATA_TYPE_BFLOAT16:
            bits = np.frombuffer(tensor.data, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32).reshape(shape)
        case tensor_pb2.DATA_TYPE_INT8:
            return from_int8(np.frombuffer(tensor.data, np.int8)).reshape(shape)
        case tensor_pb2.DATA_TYPE_UINT8:
            return from_int8(np.frombuffer(tensor.data, np.uint8).astype(np.int16) - 128).reshape(shape)
        case tensor_pb2.DATA_TYPE_BINARY:
            return from_signs(np.frombuffer(tensor.data, np.int8).astype(np.int16) + 128, shape)
        case tensor_pb2.DATA_TYPE_UBINARY:
            return from_signs(np.frombuffer(tensor.data, np.uint8), shape)
        case _:
            raise ValueError(f"not a data type: {tensor.data_type}")


def fill_tokens(tokens: tensor_pb2.TokenTensor, rows: Floats, lengths: Counts, data_type: tensor_pb2.DataType) -> None:
    """`rows` are the rows of all sequences, concatenated; `lengths` are the numbers of rows."""
    fill(tokens.tensor, rows, data_type)
    tokens.lengths = lengths.astype("<u4", copy=False).tobytes()


def split_tokens(tokens: tensor_pb2.TokenTensor) -> list[Floats]:
    """Returns the rows of each sequence, as views of one array."""
    rows = from_proto(tokens.tensor)
    return [rows[start:end] for start, end in spans(tokens.lengths)]


def copy_tokens(tokens: tensor_pb2.TokenTensor, targets: Sequence[tensor_pb2.Tensor]) -> None:
    """Copies the encoded rows of each sequence into an empty tensor."""
    whole = tokens.tensor
    rows, *row_shape = whole.shape
    row_bytes = len(whole.data) // max(rows, 1)
    data = memoryview(whole.data)
    for target, (start, end) in zip(targets, spans(tokens.lengths), strict=True):
        target.data_type = whole.data_type
        target.shape.extend((end - start, *row_shape))
        target.data = bytes(data[start * row_bytes : end * row_bytes])


def fill_sparse(
    sparse: tensor_pb2.SparseTensors, lengths: Counts, indices: Counts, values: Floats, dimension: int
) -> None:
    """`indices` and `values` are those of all vectors, concatenated; `lengths` are the numbers of non-zero values."""
    sparse.lengths = lengths.astype("<u4", copy=False).tobytes()
    sparse.indices = indices.astype("<u4", copy=False).tobytes()
    sparse.values = values.astype("<f4", copy=False).tobytes()
    sparse.dimension = dimension


def copy_sparse(sparse: tensor_pb2.SparseTensors, targets: Sequence[tensor_pb2.SparseTensor]) -> None:
    """Fills an empty message for each vector."""
    for target, (start, end) in zip(targets, spans(sparse.lengths), strict=True):
        target.indices = sparse.indices[start * 4 : end * 4]
        target.values = sparse.values[start * 4 : end * 4]
        target.dimension = sparse.dimension


def spans(lengths: bytes) -> Iterator[tuple[int, int]]:
    """Yields the start and end of each of the concatenated parts; `lengths` are uint32."""
    return pairwise([0, *np.cumsum(np.frombuffer(lengths, "<u4"), dtype=np.int64).tolist()])


def is_finite(tensor: tensor_pb2.Tensor) -> bool:
    """Whether the tensor contains neither NaN nor infinity."""
    match tensor.data_type:
        case tensor_pb2.DATA_TYPE_FLOAT32 | tensor_pb2.DATA_TYPE_UNSPECIFIED:
            return are_finite(np.frombuffer(tensor.data, "<f4"))
        case tensor_pb2.DATA_TYPE_FLOAT16:
            return bool(np.isfinite(np.frombuffer(tensor.data, "<f2")).all())
        case tensor_pb2.DATA_TYPE_BFLOAT16:
            exponents = np.frombuffer(tensor.data, "<u2") & 0x7F80
            return not (exponents == 0x7F80).any()
        case _:
            return True


def are_finite(array: Floats) -> bool:
    # The sum of squares is NaN or infinite if any component is, and takes a quarter of the time.
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def to_int8(array: Floats) -> Floats:
    """Rounds the components of a normalised vector to whole numbers from -127 to 127."""
    whole: Floats = np.rint(array * 127).clip(-127, 127).astype(np.float32, copy=False)
    return whole


def from_int8(whole: npt.NDArray[np.integer]) -> Floats:
    return whole.astype(np.float32) / np.float32(127)


def bfloat16_bits(array: Floats) -> npt.NDArray[np.uint16]:
    """Rounds to nearest, ties to even, as the hardware does."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def from_signs(packed: npt.NDArray[np.integer], shape: tuple[int, ...]) -> Floats:
    rows = math.prod(shape[:-1])
    bits = np.unpackbits(packed.astype(np.uint8).reshape(rows, math.ceil(shape[-1] / 8)), axis=-1)[:, : shape[-1]]
    return np.where(bits, np.float32(1), np.float32(-1)).reshape(shape)
