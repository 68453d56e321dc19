"""The entry point of `heddle` and `python -m heddle`."""

import os
import sys
from typing import NoReturn

from heddle.cli.closed_output import exit_if_output_closed
from heddle.cli.main import main as run
from heddle.rpc.process import leave

# Exit codes above it state the signal that ended the command.
SIGNALLED = 128


def main() -> NoReturn:
    with exit_if_output_closed():
        try:
            code = run(sys.argv[1:], os.environ)
        except SystemExit as end:
            if not isinstance(end.code, int):
                raise
            code = end.code
    if code > SIGNALLED:
        leave(code)  # threads may wait for the network
    sys.exit(code)


if __name__ == "__main__":
    main()
