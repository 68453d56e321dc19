"""How a request can fail over HTTP: one table from ErrorKind to status, and one function per family of body.

The app turns whatever a handler raises into a `Failure`, and the family of the route renders it.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import orjson

from heddle.rpc.errors import ErrorKind, HeddleError

Family: TypeAlias = "Callable[[Failure], bytes]"

# Clients send 408, 409, 429 and 5xx again, so that what would only fail again has another status.
STATUS_OF_KIND = {
    ErrorKind.INVALID_INPUT: 400,
    ErrorKind.EMPTY_INPUT: 400,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.WRONG_TASK: 424,
    ErrorKind.MODEL_NOT_FOUND: 404,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.DEADLINE_EXCEEDED: 504,
    ErrorKind.CANCELLED: 499,  # nginx's: the caller closed the connection; seen in logs and metrics alone
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.MISMATCH: 503,
    ErrorKind.UNIMPLEMENTED: 501,
    ErrorKind.BAD_OUTPUT: 424,
    ErrorKind.INTERNAL: 500,
}

OPENAI_CODES = {ErrorKind.UNAUTHENTICATED: "invalid_api_key"}
OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error", 504: "timeout_error"}


class Failure(Exception):
    """A refusal in terms of HTTP: `code` is a word for programs, `message` a sentence for people."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str = "", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = tuple(headers)

    @classmethod
    def of(cls, exception: Exception) -> "Failure":
        """Itself if it is one; otherwise what it means to a caller, with the traceback of a bug in the log."""
        if isinstance(exception, Failure):
            return exception
        error = HeddleError.from_exception(exception)
        code = OPENAI_CODES.get(error.kind, error.kind.name.lower())
        return cls(STATUS_OF_KIND[error.kind], code, error.message, param=error.field, headers=headers_of(error))


def headers_of(error: HeddleError) -> list[tuple[str, str]]:
    if error.kind is ErrorKind.UNAUTHENTICATED:
        return [("www-authenticate", "Bearer")]
    if not error.retry_after_ms:
        return []
    seconds = math.ceil(error.retry_after_ms / 1000)
    return [("retry-after", str(seconds)), ("retry-after-ms", str(error.retry_after_ms))]


def openai(failure: Failure) -> bytes:
    """https://platform.openai.com/docs/guides/error-codes"""
    type_ = OPENAI_TYPES.get(failure.status, "server_error" if failure.status >= 500 else "invalid_request_error")
    error = {"message": failure.message, "type": type_, "param": failure.param or None, "code": failure.code}
    return orjson.dumps({"error": error})


def in_words_of(names: dict[str, str], error: HeddleError, *, is_list: bool = True) -> HeddleError:
    """The same error, with the request's own name for the field: a caller that sent `input` knows no `inputs[3]`.
    The index moves to the message; `is_list` is false where the caller sent no list."""
    field, bracket, index = error.field.partition("[")
    name = names.get(field, field)
    place = f"{name}{bracket}{index}: " if bracket and is_list else ""
    return HeddleError(error.kind, place + error.message, field=name, retry_after_ms=error.retry_after_ms)
