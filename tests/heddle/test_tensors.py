"""Arrays come back within the precision of each data type, and are laid out as in tensor.proto."""

import numpy as np
import pytest

from heddle import tensors
from heddle.v1 import tensor_pb2

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(5, 20)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("data_type", "tolerance"),
    [
        (tensor_pb2.DATA_TYPE_FLOAT32, 0),
        (tensor_pb2.DATA_TYPE_FLOAT16, 1e-3),
        (tensor_pb2.DATA_TYPE_BFLOAT16, 4e-3),
        (tensor_pb2.DATA_TYPE_INT8, 0.5 / 127 + 1e-6),
        (tensor_pb2.DATA_TYPE_UINT8, 0.5 / 127 + 1e-6),
    ],
)
def test_values_come_back_within_the_precision(data_type: tensor_pb2.DataType, tolerance: float) -> None:
    back = tensors.from_proto(tensors.to_proto(VECTORS, data_type))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, VECTORS, atol=tolerance, rtol=0)


@pytest.mark.parametrize("data_type", [tensor_pb2.DATA_TYPE_BINARY, tensor_pb2.DATA_TYPE_UBINARY])
def test_binary_keeps_the_signs(data_type: tensor_pb2.DataType) -> None:
    message = tensors.to_proto(VECTORS, data_type)
    assert len(message.data) == 5 * 3  # 20 bits are 3 bytes
    assert np.array_equal(tensors.from_proto(message), np.where(VECTORS > 0, 1, -1))


def test_binary_forms_are_those_of_sentence_transformers() -> None:
    bits = np.packbits(VECTORS > 0, axis=-1)
    assert tensors.to_proto(VECTORS, tensor_pb2.DATA_TYPE_UBINARY).data == bits.tobytes()
    signed = (bits.astype(np.int16) - 128).astype(np.int8)
    assert tensors.to_proto(VECTORS, tensor_pb2.DATA_TYPE_BINARY).data == signed.tobytes()


def test_an_unspecified_data_type_is_float32() -> None:
    message = tensors.to_proto(VECTORS, tensor_pb2.DATA_TYPE_UNSPECIFIED)
    assert message.data_type == tensor_pb2.DATA_TYPE_FLOAT32
    assert message.data == VECTORS.tobytes()
    assert tuple(message.shape) == (5, 20)


def test_bfloat16_is_rounded_as_hardware_does() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -0.1, 0.0], np.float32)
    expected = [1.0, 1.0, 1 + 2**-6, -0.10009765625, 0.0]
    back = tensors.from_proto(tensors.to_proto(values, tensor_pb2.DATA_TYPE_BFLOAT16))
    np.testing.assert_allclose(back, expected, rtol=1e-3)
    assert np.array_equal(back[:3], np.array(expected[:3], np.float32))


def test_unknown_data_types_are_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        tensors.from_proto(tensor_pb2.Tensor(data_type=99))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "data_type", [tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_FLOAT16, tensor_pb2.DATA_TYPE_BFLOAT16]
)
def test_nan_and_infinity_are_found_anywhere(data_type: tensor_pb2.DataType, value: float) -> None:
    whole = np.full((3, 4), 3e38 if data_type == tensor_pb2.DATA_TYPE_FLOAT32 else 6e4, np.float32)
    assert tensors.is_finite(tensors.to_proto(whole, data_type))
    for place in np.ndindex(whole.shape):
        broken = whole.copy()
        broken[place] = value
        assert not tensors.is_finite(tensors.to_proto(broken, data_type))


def test_integer_data_types_are_always_finite() -> None:
    assert tensors.is_finite(tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_INT8, shape=[2], data=b"\xff\xff"))


@pytest.mark.parametrize("data_type", sorted(set(tensor_pb2.DataType.values()) - {0}))
def test_rows_of_tokens_lie_end_to_end_and_are_found_again(data_type: tensor_pb2.DataType) -> None:
    lengths = np.array([2, 0, 3])
    tokens = tensor_pb2.TokenTensor()
    tensors.fill_tokens(tokens, VECTORS, lengths, data_type)
    assert tokens.tensor == tensors.to_proto(VECTORS, data_type)
    split = tensors.split_tokens(tokens)
    assert [len(rows) for rows in split] == lengths.tolist()
    np.testing.assert_array_equal(np.concatenate(split), tensors.from_proto(tokens.tensor))
    copies = [tensor_pb2.Tensor() for _ in lengths]
    tensors.copy_tokens(tokens, copies)
    for copy, rows in zip(copies, split, strict=True):
        assert copy.data_type == data_type
        np.testing.assert_array_equal(tensors.from_proto(copy), rows)


def test_sparse_vectors_lie_end_to_end_and_are_found_again() -> None:
    indices, values = np.array([1, 7, 9]), np.array([0.5, 1.5, 2.5], np.float32)
    sparse = tensor_pb2.SparseTensors()
    tensors.fill_sparse(sparse, np.array([2, 0, 1]), indices, values, 30)
    copies = [tensor_pb2.SparseTensor() for _ in range(3)]
    tensors.copy_sparse(sparse, copies)
    found = [
        (np.frombuffer(copy.indices, "<u4").tolist(), np.frombuffer(copy.values, "<f4").tolist()) for copy in copies
    ]
    assert found == [([1, 7], [0.5, 1.5]), ([], []), ([9], [2.5])]
    assert {copy.dimension for copy in copies} == {30}


def test_empty_sequences_are_copied_as_empty_tensors() -> None:
    tokens = tensor_pb2.TokenTensor()
    tensors.fill_tokens(tokens, np.zeros((0, 4), np.float32), np.array([0, 0]), tensor_pb2.DATA_TYPE_FLOAT16)
    copies = [tensor_pb2.Tensor() for _ in range(2)]
    tensors.copy_tokens(tokens, copies)
    assert [(tuple(copy.shape), copy.data) for copy in copies] == [((0, 4), b"")] * 2
