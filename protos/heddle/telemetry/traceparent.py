"""The W3C trace context of a request (https://www.w3.org/TR/trace-context/). Every hop passes it on, even if it
records no spans.

A `traceparent` is `00-{trace id}-{id of the caller's span}-{flags}`. The lowest flag says that the trace is recorded.
"""

import random
import re

TRACEPARENT_CHARACTERS = 55
STATE_CHARACTERS_MAX = 512  # the standard asks to pass on at least this many

# Later versions may append fields.
TRACEPARENT = re.compile(r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

ODD_DIGITS = frozenset("13579bdf")


def read_traceparent(stated: str | None) -> str:
    """Returns the caller's context as version 00; empty if it is invalid."""
    if not stated or not TRACEPARENT.fullmatch(stated):
        return ""
    return f"00{stated[2:TRACEPARENT_CHARACTERS]}"


def read_tracestate(stated: str | None) -> str:
    return stated if stated and len(stated) <= STATE_CHARACTERS_MAX else ""


def is_recorded(traceparent: str) -> bool:
    """Returns whether a valid context has the flag. False for an empty context."""
    return len(traceparent) == TRACEPARENT_CHARACTERS and traceparent[-1] in ODD_DIGITS


def set_recorded(traceparent: str, *, recorded: bool) -> str:
    """Returns the context with this flag and no other."""
    return f"{traceparent[:-2]}{int(recorded):02d}"


def new_unrecorded() -> str:
    """Makes the context of a trace that is not recorded, so that later hops do not decide again."""
    digits = random.randbytes(24).hex()  # formatting two integers takes three times as long
    return f"00-{digits[:32]}-{digits[32:]}-00"


def trace_id(traceparent: str) -> str:
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    return traceparent[36:52]
