"""Where Heddle keeps what it downloads and builds. Models of the hub are in huggingface_hub's own cache."""

import os
from pathlib import Path

VARIABLE = "HEDDLE_CACHE"


def cache_folder() -> Path:
    """Returns the value of HEDDLE_CACHE, or else `heddle` in the user's cache. The folder need not exist."""
    if stated := os.environ.get(VARIABLE):
        return Path(stated).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "heddle"
