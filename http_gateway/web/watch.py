"""Which requests last so long that it pays to watch their connections: all are looked at together, now and then.

`http_gateway.web.server` has one; each Exchange is in it from its beginning to its end.
"""

import asyncio
from typing import Protocol

# Most requests are answered before it pays to watch their connection, which costs about 20 us. A request is watched
# when it has lasted so long, or up to twice that: a timer of its own would cost each of them 2 us.
LOOK_S = 0.1


class Watched(Protocol):
    def watch(self) -> None: ...


class Watch:
    """Made and used inside one event loop."""

    def __init__(self) -> None:
        self._new: set[Watched] = set()
        self._seen: set[Watched] = set()  # of those that were there at the last look
        self._loop = asyncio.get_running_loop()
        self._is_on = False

    def add(self, exchange: Watched) -> None:
        self._new.add(exchange)
        if not self._is_on:
            self._is_on = True
            self._loop.call_later(LOOK_S, self._look)

    def remove(self, exchange: Watched) -> None:
        """Once or more often."""
        self._new.discard(exchange)
        self._seen.discard(exchange)

    def _look(self) -> None:
        old, self._seen, self._new = self._seen, self._new, set()
        self._is_on = bool(self._seen)
        if self._is_on:
            self._loop.call_later(LOOK_S, self._look)
        for exchange in old:
            exchange.watch()
