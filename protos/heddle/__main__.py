"""The entry point of `heddle` and `python -m heddle`."""

import os
import sys
from typing import NoReturn

from heddle import cli


def main() -> NoReturn:
    sys.exit(cli.main(sys.argv[1:], os.environ))


if __name__ == "__main__":
    main()
