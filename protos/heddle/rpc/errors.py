"""All errors of requests, and their form on the wire.

A `HeddleError` raised in any service reaches the caller as the same `HeddleError`: in a stream as an `Error` message,
from a unary call as a gRPC status with that message in the trailing metadata. Clients of other makes find the advice to
retry there too, as google.rpc.RetryInfo. Any other exception is a bug: the caller gets INTERNAL with a fixed text, and
the log gets the traceback.
"""

import contextlib
import enum
import logging
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from heddle.v1 import error_pb2

DETAIL_KEY = "heddle-error-bin"
STATUS_KEY = "grpc-status-details-bin"  # a google.rpc.Status

# A message may quote input of any length.
TEXT_BYTES_MAX = 16 << 10
# Peers refuse more than 8 KiB of metadata. Percent-encoding triples a message, base64 adds a third.
STATUS_BYTES_MAX = 1_000

# gRPC reports a message over the size limit with these words, and with the status of an overload.
MESSAGE_OVER_LIMIT = "message larger than max"

log = logging.getLogger(__name__)


class ErrorKind(enum.Enum):
    """A closed set, documented in heddle.v1.ErrorKind. A new kind changes the contract."""

    INVALID_INPUT = error_pb2.ERROR_KIND_INVALID_INPUT
    EMPTY_INPUT = error_pb2.ERROR_KIND_EMPTY_INPUT
    TOO_LARGE = error_pb2.ERROR_KIND_TOO_LARGE
    WRONG_TASK = error_pb2.ERROR_KIND_WRONG_TASK
    MODEL_NOT_FOUND = error_pb2.ERROR_KIND_MODEL_NOT_FOUND
    UNAUTHENTICATED = error_pb2.ERROR_KIND_UNAUTHENTICATED
    OVERLOADED = error_pb2.ERROR_KIND_OVERLOADED
    DEADLINE_EXCEEDED = error_pb2.ERROR_KIND_DEADLINE_EXCEEDED
    CANCELLED = error_pb2.ERROR_KIND_CANCELLED
    UNAVAILABLE = error_pb2.ERROR_KIND_UNAVAILABLE
    MISMATCH = error_pb2.ERROR_KIND_MISMATCH
    UNIMPLEMENTED = error_pb2.ERROR_KIND_UNIMPLEMENTED
    BAD_OUTPUT = error_pb2.ERROR_KIND_BAD_OUTPUT
    INTERNAL = error_pb2.ERROR_KIND_INTERNAL


# The messages of these kinds may quote what the caller sent.
QUOTING = frozenset({ErrorKind.INVALID_INPUT, ErrorKind.MODEL_NOT_FOUND})

STATUS_OF_KIND = {
    ErrorKind.INVALID_INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.EMPTY_INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.WRONG_TASK: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.CANCELLED: grpc.StatusCode.CANCELLED,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorKind.BAD_OUTPUT: grpc.StatusCode.INTERNAL,
    ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
}

# The kind of a status without our details: from another server, or from gRPC itself.
KIND_OF_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorKind.INVALID_INPUT,
    grpc.StatusCode.OUT_OF_RANGE: ErrorKind.TOO_LARGE,
    grpc.StatusCode.FAILED_PRECONDITION: ErrorKind.MISMATCH,
    grpc.StatusCode.NOT_FOUND: ErrorKind.MODEL_NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: ErrorKind.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorKind.OVERLOADED,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorKind.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED: ErrorKind.CANCELLED,
    grpc.StatusCode.UNAVAILABLE: ErrorKind.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED: ErrorKind.UNIMPLEMENTED,
}


class HeddleError(Exception):
    """An error for the caller: `kind` for programs, `message` for people, `field` of the request."""

    def __init__(self, kind: ErrorKind, message: str, *, field: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms

    @property
    def log_text(self) -> str:
        """What a log may say: the message, or only the field where the message may quote the request."""
        where = f" ({self.field})" if self.field else ""
        return f"{self.kind.name}{where}" if self.kind in QUOTING else f"{self.kind.name}{where}: {self.message}"

    def to_proto(self) -> error_pb2.Error:
        return error_pb2.Error(
            kind=self.kind.value,
            message=clip(self.message, TEXT_BYTES_MAX),
            field=self.field,
            retry_after_ms=self.retry_after_ms,
        )

    @classmethod
    def from_proto(cls, error: error_pb2.Error) -> "HeddleError":
        try:
            kind = ErrorKind(error.kind)
        except ValueError:  # a newer peer's kind
            kind = ErrorKind.INTERNAL
        return cls(kind, error.message, field=error.field, retry_after_ms=error.retry_after_ms)

    @classmethod
    def from_exception(cls, exception: BaseException) -> "HeddleError":
        """Returns a HeddleError as it is. Makes INTERNAL with a fixed text of any other, and logs the traceback."""
        if isinstance(exception, HeddleError):
            return exception
        log.error("internal error", exc_info=exception)
        return cls(ErrorKind.INTERNAL, "internal error")

    @classmethod
    def from_rpc_error(cls, error: grpc.aio.AioRpcError) -> "HeddleError":
        """The error that one of our servers raised, or else the meaning of the status."""
        detail = find_detail(error)
        if detail is not None:
            with contextlib.suppress(DecodeError):  # not one of our servers
                return cls.from_proto(error_pb2.Error.FromString(detail))
        message = error.details() or error.code().name
        if MESSAGE_OVER_LIMIT in message:
            return cls(ErrorKind.TOO_LARGE, message)
        return cls(KIND_OF_STATUS.get(error.code(), ErrorKind.INTERNAL), message)


def find_detail(error: grpc.aio.AioRpcError) -> bytes | None:
    """The serialized Error of one of our servers. None if the status came from elsewhere, or the peer is gone."""
    details = [value for key, value in error.trailing_metadata() or () if key == DETAIL_KEY]
    return details[0] if details and isinstance(details[0], bytes) else None


def clip(text: str, bytes_max: int) -> str:
    return text.encode(errors="replace")[:bytes_max].decode(errors="ignore")


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: HeddleError) -> NoReturn:
    """Ends an RPC with the error's status. The client's `from_rpc_error` restores the error. Raises AbortError."""
    message = clip(error.message, STATUS_BYTES_MAX)
    short = HeddleError(error.kind, message, field=error.field, retry_after_ms=error.retry_after_ms)
    details = [(DETAIL_KEY, short.to_proto().SerializeToString())]
    if error.retry_after_ms:
        details.append((STATUS_KEY, encode_retry_info(short)))
    await context.abort(STATUS_OF_KIND[error.kind], message, tuple(details))
    raise AssertionError("abort returned")


def encode_retry_info(error: HeddleError) -> bytes:
    """A serialized google.rpc.Status with a RetryInfo."""
    # Only servers have these, and only refusals need them.
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

    code: int = STATUS_OF_KIND[error.kind].value[0]
    status = status_pb2.Status(code=code, message=error.message)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(error.retry_after_ms)
    status.details.add().Pack(info)
    return bytes(status.SerializeToString())
