"""Prints what runs now and the time left, one line each, on stderr."""

import sys
import time


class Progress:
    def __init__(self, seconds: float) -> None:
        self._seconds_left = seconds

    def passed(self, seconds: float) -> None:
        """Records that this much of the plan is done. The rest is expected to take its planned time."""
        self._seconds_left = max(0.0, self._seconds_left - seconds)

    def line(self, text: str) -> None:
        left = f"{self._seconds_left // 60:.0f}:{self._seconds_left % 60:02.0f} left"
        print(f"[{time.strftime('%H:%M:%S')}, {left:>11}] {text}", file=sys.stderr, flush=True)
