"""Tables of token vectors in answers. The routes of /embed and /embed_all use them."""

from collections.abc import Iterator

from heddle import tensors
from heddle.v1 import tensor_pb2
from http_gateway.web.message import LongList


class Rows:
    """The rows of a tensor, one per token. Its bytes are copied only when the rows are iterated: there may be many."""

    def __init__(self, tensor: tensor_pb2.Tensor) -> None:
        self._tensor = tensor

    def __len__(self) -> int:
        return self._tensor.shape[0]

    def __iter__(self) -> Iterator[tensors.Floats]:
        return iter(tensors.from_proto(self._tensor))


def table_of(tensor: tensor_pb2.Tensor) -> LongList:
    return LongList(Rows(tensor))
