"""How a stream ends that does not end well. Raised within the package; `StreamBroken` reaches readers and writers."""

from heddle.rpc.errors import HeddleError
from heddle.rpc.http2 import frames


class StreamBroken(HeddleError):
    """Nothing more can be read or written."""


class ProtocolError(Exception):
    """The peer does not speak HTTP/2 as it must; `code` tells it so."""

    def __init__(self, message: str, code: int = frames.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code
