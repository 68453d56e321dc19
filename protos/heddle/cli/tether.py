"""Runs a command that dies when its parent does: `python tether.py PARENT_PID COMMAND...`.

Put by `supervisor` in front of each service, so that killing the supervisor outright leaves no orphans that hold
ports and memory. The kernel keeps the promise across exec; where there is no prctl (macOS) the command runs without.
A program of its own because Python code between fork and exec is unsafe once threads are running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
