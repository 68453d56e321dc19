"""Tables of vectors, one for each token of a text, as answers hold them."""

from collections.abc import Iterator

from heddle import tensors
from heddle.v1 import tensor_pb2
from http_gateway.long_list import LongList


class Rows:
    """Of a tensor, one for each token. Its bytes, which may be many, are copied once the rows are asked for."""

    def __init__(self, tensor: tensor_pb2.Tensor) -> None:
        self._tensor = tensor

    def __len__(self) -> int:
        return self._tensor.shape[0]

    def __iter__(self) -> Iterator[tensors.Floats]:
        return iter(tensors.from_proto(self._tensor))


def table_of(tensor: tensor_pb2.Tensor) -> LongList:
    return LongList(Rows(tensor))
