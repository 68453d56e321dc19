"""When the caller stops waiting: the one deadline of a request, set where it arrives, and sent along with all its work.

Callers can only shorten the time that the gateway gives. Baseten's client sends both headers with every request.
"""

import math
import time

from http_gateway.web.message import Headers

TIMEOUT_HEADER = "request-timeout-ms"
DEADLINE_HEADER = "request-deadline-ms"  # milliseconds since 1970


def read_deadline(headers: Headers, timeout_s: float) -> float:
    """time.monotonic() seconds. A header that is no number counts as absent."""
    left_s = timeout_s
    if timeout := headers.get(TIMEOUT_HEADER):
        left_s = min(left_s, milliseconds(timeout) / 1000)
    if deadline := headers.get(DEADLINE_HEADER):
        left_s = min(left_s, milliseconds(deadline) / 1000 - time.time())
    return time.monotonic() + max(0.0, left_s)


def milliseconds(header: str) -> float:
    """Infinite for what is no number."""
    text = header.strip()
    return float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else math.inf
