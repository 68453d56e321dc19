"""What runs now, and for how long still: one line each, on stderr."""

import sys
import time


class Progress:
    def __init__(self, seconds: float) -> None:
        self._seconds_left = seconds

    def passed(self, seconds: float) -> None:
        """So much of the plan is done; what is left is as planned, whatever it took so far."""
        self._seconds_left = max(0.0, self._seconds_left - seconds)

    def line(self, text: str) -> None:
        left = f"{self._seconds_left // 60:.0f}:{self._seconds_left % 60:02.0f} left"
        print(f"[{time.strftime('%H:%M:%S')}, {left:>11}] {text}", file=sys.stderr, flush=True)
