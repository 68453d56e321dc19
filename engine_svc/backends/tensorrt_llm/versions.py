"""Which versions of TensorRT-LLM are supported, and which API each of them is called by. The version comes from the
package's metadata, since importing the package needs a GPU driver and takes long.
"""

import enum
import importlib.metadata
import math
import re

from heddle.rpc.settings import ConfigurationError

PACKAGE = "tensorrt_llm"
SUPPORTED = "1.2, and 1.3.0rc22 to 1.4"

Version = tuple[int, int, int, float]  # the last is the number of a release candidate, infinity for a release

FORM = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.?rc(\d+))?")


class Api(enum.Enum):
    """The method of LLM that returns hidden states."""

    GENERATE = "generate_async"  # the LLM queues requests for an executor
    ENCODE = "encode"  # one forward pass in the calling thread


# The first version that has the API, the version before which it ends, the API.
APIS: tuple[tuple[Version, Version, Api], ...] = (
    ((1, 2, 0, math.inf), (1, 3, 0, 0), Api.GENERATE),
    ((1, 3, 0, 22), (1, 5, 0, 0), Api.ENCODE),
)


def installed_version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_api() -> Api:
    """Raises ConfigurationError if the package is missing or its version is not supported."""
    version = installed_version()
    if version is None:
        raise ConfigurationError(f"tensorrt-llm is not installed (supported: {SUPPORTED})")
    return api_of(version)


def api_of(version: str) -> Api:
    """Raises ConfigurationError for a version that is not supported."""
    parsed = parsed_version(version)
    for first, end, api in APIS:
        if parsed is not None and first <= parsed < end:
            return api
    raise ConfigurationError(f"tensorrt-llm {version} is not supported (supported: {SUPPORTED})")


def parsed_version(version: str) -> Version | None:
    match = FORM.match(version)
    if match is None:
        return None
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch or 0), math.inf if candidate is None else int(candidate)
