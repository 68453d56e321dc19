"""Lists that may be long: the routes answer them, http_gateway.web.writing makes their items as it writes them."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Source(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class LongList:
    """What `make` makes of each thing of `source`, or those things themselves. Nothing is made before it is written, so
    that neither all items exist at once nor others wait for all of them. The items may be such lists again."""

    __slots__ = ("_make", "_source")

    def __init__(self, source: Source, make: Callable[[Any], Any] | None = None) -> None:
        self._source = source
        self._make = make

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        return map(self._make, self._source) if self._make else iter(self._source)
