"""Ends a command quietly when the reader of its output is gone, as in `heddle config check c.yaml | head -1`.

Python would print a traceback. Called by the entry points of all commands.
"""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Exit code that a shell reports for a program killed by SIGPIPE.
EXIT_CLOSED_OUTPUT = 141


@contextmanager
def exit_if_output_closed() -> Iterator[None]:
    """Raises SystemExit if nobody reads the standard output any more. The BrokenPipeError of a socket passes."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # as after >&- in a shell
                sys.stdout.flush()
    except BrokenPipeError:
        if has_reader(sys.stdout.fileno()):
            raise
        # The interpreter flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_CLOSED_OUTPUT) from None


def has_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    return not any(events & select.POLLERR for _, events in poll.poll(0))
