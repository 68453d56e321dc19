"""What TEI's flags say about a text that is too long. Used by all of its services that run the model."""

from typing import Protocol

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2
from heddle.v1 import inference_pb2

TRUNCATIONS = {
    tei_pb2.TRUNCATION_DIRECTION_RIGHT: inference_pb2.TRUNCATION_RIGHT,
    tei_pb2.TRUNCATION_DIRECTION_LEFT: inference_pb2.TRUNCATION_LEFT,
}


class Truncatable(Protocol):
    @property
    def truncate(self) -> bool: ...
    @property
    def truncation_direction(self) -> tei_pb2.TruncationDirection: ...


def truncation_of(request: Truncatable) -> inference_pb2.Truncation:
    """As its gRPC server, which refuses unless told to truncate, whatever `--auto-truncate` says. INVALID_INPUT for a
    direction that there is not."""
    direction = TRUNCATIONS.get(request.truncation_direction)
    if direction is None:
        message = f"there is no truncation direction {request.truncation_direction}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="truncation_direction")
    return direction if request.truncate else inference_pb2.TRUNCATION_REFUSE
