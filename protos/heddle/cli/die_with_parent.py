"""Runs a command that is killed when its parent process dies: `python die_with_parent.py PARENT_PID COMMAND...`.

The supervisor starts every service through this file. Even a supervisor that was killed with SIGKILL therefore leaves
no services behind that hold ports and memory. The kernel keeps the setting across exec. Systems without prctl, such as
macOS, run the command without it.

This is a program of its own because running Python code between fork and exec (subprocess's `preexec_fn`) is not safe
in a process with threads, and gRPC has threads.
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
    if os.getppid() != parent:  # the parent died before the line above
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
