"""When the caller stops waiting: the one deadline of a request, set where it arrives, and sent along with all its work.

Callers can only shorten the time that the gateway gives. Baseten's client sends both headers with every request.
"""

import time

from http_gateway.message import Headers

TIMEOUT_HEADER = "request-timeout-ms"
DEADLINE_HEADER = "request-deadline-ms"  # milliseconds since 1970


def deadline_of(headers: Headers, timeout_s: float) -> float:
    """time.monotonic() seconds. A header that is no number counts as absent."""
    left_s = [timeout_s]
    if (timeout_ms := milliseconds(headers.get(TIMEOUT_HEADER))) is not None:
        left_s.append(timeout_ms / 1000)
    if (deadline_ms := milliseconds(headers.get(DEADLINE_HEADER))) is not None:
        left_s.append(deadline_ms / 1000 - time.time())
    return time.monotonic() + max(0.0, min(left_s))


def milliseconds(header: str | None) -> float | None:
    text = (header or "").strip()
    return float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else None
