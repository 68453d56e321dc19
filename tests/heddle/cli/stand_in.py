"""Stands in for a service under the supervisor: `stand_in.py FOLDER NAME KIND`. It logs its events in FOLDER.

Kinds: steady (ready at once, stops on SIGTERM), stubborn (ignores it), misconfigured (exit code 2 after a line), broken
(exit code 1 at once), and flaky (broken the first two times, then steady).
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path

folder, name, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


def note(event: str) -> None:
    with (folder / "events").open("a") as events:
        events.write(f"{name} {event}\n")


def stop(number: int, frame: object) -> None:
    note("stopped")
    sys.exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "stubborn" else stop)
    note("started")
    if kind == "misconfigured":
        from heddle.rpc import process
        from heddle.telemetry.logs import start_logging

        start_logging(name, log_format="text", log_level="info")
        logging.getLogger(process.__name__).critical("%s: no such model", name)
        sys.exit(2)
    starts = (folder / "events").read_text().count(f"{name} started")
    if kind == "broken" or (kind == "flaky" and starts <= 2):
        sys.exit(1)
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
