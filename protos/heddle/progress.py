"""Shows the progress of long work: a bar on a terminal, or else a line every LINE_EVERY_S, and a line at the end.
Called where files are downloaded, published and built.

Services set up logging, so their lines are log lines. `heddle serve` does not, and prints to stderr.
"""

import importlib.util
import io
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

# Seconds between lines where there is no bar.
LINE_EVERY_S = 10.0

UNITS = ("bytes", "kB", "MB", "GB", "TB")

logger = logging.getLogger("heddle")


def say(text: str) -> None:
    if logging.getLogger().hasHandlers():
        logger.info(text)
    else:
        print(f"heddle: {text}", file=sys.stderr, flush=True)


def is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def spelled_size(count: float) -> str:
    """1234567 is "1.2 MB"."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes any count")


class Progress:
    """Counts bytes, or items that are called `unit`. Any thread may call `add`. `total` is 0 if it is unknown."""

    def __init__(self, title: str, total: int, done: int = 0, *, unit: str = "") -> None:
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._lock = threading.Lock()
        self._start = self._said_at = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if is_terminal() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            unit = {"unit": f" {self.unit}"} if self.unit else {"unit": "B", "unit_scale": True}
            self._bar = tqdm(desc=self.title, total=self.total or None, initial=self.done, leave=False, **unit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if error is None and self.done:
            say(f"{self.title}: {self.format_count(self.done)} in {time.monotonic() - self._start:.1f} s")

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            if self._bar is not None:
                self._bar.update(count)
            elif time.monotonic() - self._said_at >= LINE_EVERY_S:
                self._said_at = time.monotonic()
                say(f"{self.title}: {self.describe()}")

    def describe(self) -> str:
        if not self.total:
            return self.format_count(self.done)
        return f"{self.format_count(self.done)} of {self.format_count(self.total)} ({self.done * 100 // self.total}%)"

    def format_count(self, count: int) -> str:
        return f"{count} {self.unit}" if self.unit else spelled_size(count)


def logged_bar(title: str) -> type[Any]:
    """Returns a subclass of tqdm for huggingface_hub that writes lines instead of drawing a bar."""
    from tqdm import tqdm

    class LoggedBar(tqdm):  # type: ignore[misc, unused-ignore]
        monitor_interval = 0
        said_at = time.monotonic()

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            settings.pop("name", None)  # tqdm does not know it
            super().__init__(*arguments, **{**settings, "file": io.StringIO(), "leave": False, "disable": False})
            self.said_at = time.monotonic()

        def display(self, msg: str | None = None, *_: Any, **__: Any) -> None:
            """Reports only bytes as they arrive: huggingface_hub also has bars for files, and for bytes as they are
            written. `msg` is "" at the end."""
            is_of_bytes = msg is None and self.unit == "B" and str(self.desc).startswith("Download")
            if is_of_bytes and time.monotonic() - self.said_at >= LINE_EVERY_S:
                self.said_at = time.monotonic()
                of_all = f" of {spelled_size(self.total)} ({self.n * 100 // self.total:.0f}%)" if self.total else ""
                say(f"{title}: {spelled_size(self.n)}{of_all}")

    return LoggedBar
