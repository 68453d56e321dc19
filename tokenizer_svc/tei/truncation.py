"""What TEI's flags say about a text that is too long. Used by all of its services that run the model."""

from typing import Protocol

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2
from heddle.v1 import inference_pb2

SIDES = {
    tei_pb2.TRUNCATION_DIRECTION_RIGHT: inference_pb2.TRUNCATION_SIDE_RIGHT,
    tei_pb2.TRUNCATION_DIRECTION_LEFT: inference_pb2.TRUNCATION_SIDE_LEFT,
}


class TruncationFlags(Protocol):
    @property
    def truncate(self) -> bool: ...
    @property
    def truncation_direction(self) -> tei_pb2.TruncationDirection: ...


def truncation_of(request: TruncationFlags) -> inference_pb2.Truncation:
    """As its gRPC server, which refuses unless told to truncate, whatever `--auto-truncate` says."""
    return inference_pb2.TRUNCATION_ALLOW if request.truncate else inference_pb2.TRUNCATION_REFUSE


def side_of(request: TruncationFlags) -> inference_pb2.TruncationSide:
    """The right one unless the caller says otherwise, whatever the pod is set to. Raises INVALID_INPUT for a direction
    that there is not."""
    side = SIDES.get(request.truncation_direction)
    if side is None:
        message = f"there is no truncation direction {request.truncation_direction}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="truncation_direction")
    return side
