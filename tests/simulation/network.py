"""The network between simulated processes: `Link` is one TCP connection.

Messages of a link arrive in order, each after a delay of its own, so that those of different links overtake one
another. A link can stall, break, or lose everything without a word.
"""

import random
from collections.abc import Callable
from typing import Any

from tests.simulation.virtual_time import Process, VirtualLoop

# When the ends of a connection notice that the other is gone without a word. gRPC takes 30 s, most of which nothing
# else would happen.
KEEPALIVE_S = 10.0
# Timers of the same time fire in any order.
TICK_S = 1e-7


class Network:
    def __init__(self, loop: VirtualLoop, draws: random.Random, trace: Callable[..., None] = lambda *_: None) -> None:
        self.loop = loop
        self.draws = draws
        self.trace = trace
        self.mean_delay_s = 0.0005
        self.late_share = 0.01  # of messages: TCP sends them again
        self.names: dict[str, list[str]] = {}  # the hosts behind a name
        self.resolves = True
        self.servers: dict[str, Any] = {}  # by host:port, see `streams`
        self.links: list[Link] = []
        loop.look_up = self._look_up

    def delay_s(self) -> float:
        delay_s = self.draws.expovariate(1 / self.mean_delay_s)
        return delay_s + 0.2 if self.draws.random() < self.late_share else delay_s

    def _look_up(self, name: str) -> list[str]:
        if not self.resolves or not self.names[name]:
            raise OSError("there is no answer")
        return self.names[name]


class Link:
    """A connection of a client's process to a server's."""

    def __init__(self, network: Network, client: Process, server: Process) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.on_lost: dict[Process, list[Callable[[], None]]] = {client: [], server: []}
        self.is_up = True
        self.is_silent = False
        self._drops = False  # what is under way
        self._last = {client: 0.0, server: 0.0}  # when the last message to each arrives
        network.links.append(self)
        for end in self._last:
            end.on_exit.append(self.break_off)

    def send(self, receiver: Process, callback: Callable[..., Any], *args: Any) -> None:
        if self.is_up:
            self._deliver(receiver, lambda: self._drops or callback(*args))

    def stall(self, seconds: float) -> None:
        """Whatever is sent from now on arrives later."""
        for end in self._last:
            self._last[end] = self.network.loop.time() + seconds

    def break_off(self) -> None:
        """Both ends are told. What is under way may be lost."""
        if self.is_up:
            self.is_up = False
            self._drops = self.network.draws.random() < 0.5
            for end in self._last:
                self._deliver(end, self._lose, end)

    def go_silent(self) -> None:
        """Nothing arrives any more."""
        self.is_up, self.is_silent, self._drops = False, True, True
        for end in self._last:
            self.network.loop.call_later(KEEPALIVE_S, self._lose, end, context=end.context.copy())

    def _deliver(self, receiver: Process, callback: Callable[..., Any], *args: Any) -> None:
        loop = self.network.loop
        at = self._last[receiver] = max(self._last[receiver] + TICK_S, loop.time() + self.network.delay_s())
        loop.call_at(at, callback, *args, context=receiver.context.copy())

    def _lose(self, end: Process) -> None:
        self.network.trace("lost", f"{self.client.name}>{self.server.name}", "at", end.name)
        for callback in self.on_lost[end]:
            callback()
