"""Keeps, logs and explains the reasons why pods take no items. Used by `heddle.rpc.pod`, `heddle.rpc.pool` and
`tokenizer_svc.unary_engines`."""

import logging
import math
import time
from collections.abc import Sequence

import grpc

from heddle.rpc.credentials import Access, explain_refusal
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.keys import unauthenticated
from heddle.rpc.settings import ConfigurationError

# A pod that cannot be reached for this long is logged once as a warning.
AWAY_S = 5.0

log = logging.getLogger(__name__)


class Refusals:
    def __init__(self, target: str) -> None:
        self.last: HeddleError | None = None  # why the pod takes no items
        self._target = target
        self._since = math.inf  # time.monotonic(); inf once it has been logged
        self._is_known = False  # from the log
        self.is_connected = False  # it refuses items, not the connection

    def clear(self) -> None:
        """The pod takes items."""
        if self._is_known:
            log.info("%s is back", self._target)
        self.last, self._is_known = None, False

    def log_loss(self, unanswered: int) -> None:
        """For a stream that has ended without notice, or with unanswered items."""
        items = f" with {unanswered} unanswered items; sending them to other pods" if unanswered else ""
        log.warning("lost %s%s", self._target, items)
        self._is_known = True

    def note(self, error: HeddleError, *, is_connected: bool = False) -> None:
        """Logs at debug level while the pod may be restarting, once as a warning after AWAY_S, and once as an error if
        the pod refuses this client."""
        now = time.monotonic()
        if self.last is None:
            self._since = now
        is_news = self.last is None or self.last.message != error.message
        level = logging.DEBUG
        if error.kind is not ErrorKind.UNAVAILABLE and is_news:
            level = logging.ERROR
        elif now - self._since > AWAY_S:
            level, self._since = logging.WARNING, math.inf
        log.log(level, "%s%s", "" if is_connected else f"no stream to {self._target}: ", error)
        self._is_known |= level >= logging.WARNING
        self.last, self.is_connected = error, is_connected


def explain(error: Exception, target: str, access: Access) -> HeddleError:
    """Returns the reason why a stream or call to the target has failed."""
    match error:
        case grpc.aio.AioRpcError():
            refusal = explain_refusal(error.details() or "", target, access.tls)
            return unauthenticated(refusal) if refusal else HeddleError.from_rpc_error(error)
        case ConfigurationError():
            return unauthenticated(str(error))
        case TimeoutError():
            return HeddleError(ErrorKind.UNAVAILABLE, f"{target} does not answer")
    return HeddleError.from_exception(error)


def explain_absence(pods: Sequence[Refusals], targets: Sequence[str]) -> HeddleError:
    """Returns the error for callers when no pod at the targets is available."""
    for pod in pods:
        if pod.last is not None and pod.is_connected:
            return pod.last
    refusals = [pod.last for pod in pods if pod.last is not None]
    for refusal in refusals:
        if refusal.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.UNAUTHENTICATED):
            return refusal
    # Only errors of our own servers are quoted. Others are gRPC's and the system's various texts for "unreachable".
    # UNAUTHENTICATED is a fault of this process, not of its caller, so the caller must not get that kind.
    quoted = [one for one in refusals if one.retry_after_ms or one.kind is ErrorKind.UNAUTHENTICATED]
    said = f": {quoted[0].message}" if quoted else ""
    message = f"no pod can be reached at {', '.join(targets)}{said}"
    return HeddleError(ErrorKind.UNAVAILABLE, message, retry_after_ms=1000)
