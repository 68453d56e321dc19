"""How a request can fail over HTTP: the status of each ErrorKind, and the names of fields that the caller knows.

The app turns whatever a handler raises into a `Failure`; the family of the route (http_gateway.api.families) writes its
body.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from heddle.rpc.errors import ErrorKind, HeddleError

# Clients retry 408, 409, 429 and 5xx, so errors that a retry would repeat have other statuses.
HTTP_STATUS_OF_KIND = {
    ErrorKind.INVALID_INPUT: 400,
    ErrorKind.EMPTY_INPUT: 400,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.WRONG_TASK: 424,
    ErrorKind.MODEL_NOT_FOUND: 404,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.DEADLINE_EXCEEDED: 504,
    ErrorKind.CANCELLED: 499,  # as in nginx: the caller closed the connection, so only logs and metrics show it
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.MISMATCH: 503,
    ErrorKind.UNIMPLEMENTED: 501,
    ErrorKind.BAD_OUTPUT: 424,
    ErrorKind.INTERNAL: 500,
}

# OpenAI's own code; the others are the lower-case names of the kinds.
CODE_OF_KIND = {ErrorKind.UNAUTHENTICATED: "invalid_api_key"}


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
    def from_exception(cls, exception: Exception, statuses: Mapping[ErrorKind, int] = HTTP_STATUS_OF_KIND) -> "Failure":
        """What it means to a caller. The traceback of a bug goes to the log."""
        if isinstance(exception, Failure):
            return exception
        error = HeddleError.from_exception(exception)
        code = CODE_OF_KIND.get(error.kind, error.kind.name.lower())
        return cls(statuses[error.kind], code, error.message, param=error.field, headers=error_headers(error))


def error_headers(error: HeddleError) -> list[tuple[str, str]]:
    if error.kind is ErrorKind.UNAUTHENTICATED:
        return [("www-authenticate", "Bearer")]
    if not error.retry_after_ms:
        return []
    seconds = math.ceil(error.retry_after_ms / 1000)
    return [("retry-after", str(seconds)), ("retry-after-ms", str(error.retry_after_ms))]


# Names one item of a list: `inputs[3]`.
ITEM = re.compile(r"(?P<field>[^\[]*)\[(?P<index>\d+)\]")


class RenamedFields:
    """A context in which errors name fields as the request does: a caller that sent `input` knows no `inputs[3]`. The
    message begins with the name, unless it contains it already."""

    __slots__ = ("_is_list", "_names", "_place_of")

    def __init__(
        self, names: Mapping[str, str], *, is_list: bool = True, place_of: Callable[[int], str] | None = None
    ) -> None:
        """`is_list` is false if the caller sent a single text, which needs no name. `place_of` names the item with an
        index, for callers who may send lists of lists."""
        self._names = names
        self._is_list = is_list
        self._place_of = place_of

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HeddleError):
            raise self._rename(error) from error

    def _rename(self, error: HeddleError) -> HeddleError:
        match = ITEM.fullmatch(error.field)
        field = match["field"] if match else error.field
        name = self._names.get(field, field)
        if match is None:
            place = "" if name in error.message else name
        elif self._is_list:
            place = self._place_of(int(match["index"])) if self._place_of else f"{name}[{match['index']}]"
        else:
            place = ""
        message = f"{place}: {error.message}" if place else error.message
        return HeddleError(error.kind, message, field=name, retry_after_ms=error.retry_after_ms)
