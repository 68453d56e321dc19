"""How a request can fail over HTTP: one table from ErrorKind to status, and the words that the caller knows.

The app turns whatever a handler raises into a `Failure`; the family of the route (http_gateway.api.families) tells it.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from heddle.rpc.errors import ErrorKind, HeddleError

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

# Where OpenAI has a word of its own.
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
    def of(cls, exception: Exception, statuses: Mapping[ErrorKind, int] = STATUS_OF_KIND) -> "Failure":
        """Itself if it is one; otherwise what it means to a caller, with the traceback of a bug in the log."""
        if isinstance(exception, Failure):
            return exception
        error = HeddleError.from_exception(exception)
        code = CODE_OF_KIND.get(error.kind, error.kind.name.lower())
        return cls(statuses[error.kind], code, error.message, param=error.field, headers=headers_of(error))


def headers_of(error: HeddleError) -> list[tuple[str, str]]:
    if error.kind is ErrorKind.UNAUTHENTICATED:
        return [("www-authenticate", "Bearer")]
    if not error.retry_after_ms:
        return []
    seconds = math.ceil(error.retry_after_ms / 1000)
    return [("retry-after", str(seconds)), ("retry-after-ms", str(error.retry_after_ms))]


# What names one of several: `inputs[3]`.
PLACE = re.compile(r"(?P<field>[^\[]*)\[(?P<index>\d+)\]")


class InWordsOf:
    """`with` it, the errors of a call have the request's own name for the field: a caller that sent `input` knows no
    `inputs[3]`. The message begins with the place, unless it names it already."""

    __slots__ = ("_is_list", "_names", "_place_of")

    def __init__(
        self, names: Mapping[str, str], *, is_list: bool = True, place_of: Callable[[int], str] | None = None
    ) -> None:
        """`is_list` is false where the caller sent no list, but one text that there is no need to name, and `place_of`
        says where it is for callers who may send lists of lists."""
        self._names = names
        self._is_list = is_list
        self._place_of = place_of

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HeddleError):
            raise self._told(error) from error

    def _told(self, error: HeddleError) -> HeddleError:
        match = PLACE.fullmatch(error.field)
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
