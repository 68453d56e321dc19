"""The entry point of `heddle` and `python -m heddle`."""

import os
import sys
from typing import NoReturn

from heddle.cli.main import main as run


def main() -> NoReturn:
    sys.exit(run(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
