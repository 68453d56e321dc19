"""The tickets that wait: by priority, within that by flow, and the flows in the order of their turns.

The scheduler has one `Flows`, and decides what leaves it. Whatever waits, each method takes the same time.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine_svc.ticket import Ticket
from heddle.turns import Turns


@dataclass(slots=True, eq=False)
class Flow:
    """The waiting tickets of one flow, first in first out. An ordered dict, because a cancelled ticket leaves from the
    middle."""

    name: str
    priority: int
    tickets: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)
    tokens: int = 0

    @property
    def first(self) -> Ticket:
        return next(iter(self.tickets))


class Flows:
    """None of its flows and classes is empty. Not thread-safe."""

    def __init__(self, bulk_tokens: int) -> None:
        """A flow with more than so many tokens is a bulk."""
        self.items = 0
        self.tokens = 0
        self.bulks = 0
        self._bulk_tokens = bulk_tokens
        self._classes: dict[int, Turns[Flow]] = {}
        self._priorities: list[int] = []  # of the classes, sorted

    def __bool__(self) -> bool:
        return bool(self._priorities)

    @property
    def front(self) -> Flow:
        """The flow whose turn it is."""
        return self._classes[self._priorities[0]].front

    def of_first_class(self) -> Iterator[Flow]:
        """The flows of the first class, in the order of their turns."""
        return iter(self._classes[self._priorities[0]])

    def is_bulk(self, flow: Flow) -> bool:
        return flow.tokens > self._bulk_tokens

    def put(self, ticket: Ticket) -> None:
        flow = self._flow_of(ticket)
        if flow is None:
            flow = Flow(ticket.flow, ticket.priority)
            self._attach(flow)
        flow.tickets[ticket] = None
        self._count(flow, 1, ticket.tokens)

    def remove(self, ticket: Ticket) -> bool:
        """False if it does not wait."""
        flow = self._flow_of(ticket)
        if flow is None or ticket not in flow.tickets:
            return False
        del flow.tickets[ticket]
        self._count(flow, -1, -ticket.tokens)
        if not flow.tickets:
            self._detach(flow)
        return True

    def take_turn(self, flow: Flow) -> Ticket:
        """Removes the first ticket of the flow and moves the flow to the end of its class."""
        ticket = flow.first
        self._classes[flow.priority].move_to_end(flow.name)
        self.remove(ticket)
        return ticket

    def set_aside(self, flow: Flow) -> None:
        """Others are in front, until it is put back."""
        self._detach(flow)

    def put_back(self, flow: Flow) -> None:
        """Puts the flow in front of all others of its class."""
        self._attach(flow)
        self._classes[flow.priority].move_to_front(flow.name)

    def _flow_of(self, ticket: Ticket) -> Flow | None:
        flows = self._classes.get(ticket.priority)
        return flows.get(ticket.flow) if flows else None

    def _count(self, flow: Flow, items: int, tokens: int) -> None:
        was_bulk = self.is_bulk(flow)
        flow.tokens += tokens
        self.items += items
        self.tokens += tokens
        self.bulks += self.is_bulk(flow) - was_bulk

    def _attach(self, flow: Flow) -> None:
        if flow.priority not in self._classes:
            self._classes[flow.priority] = Turns()
            insort(self._priorities, flow.priority)
        self._classes[flow.priority].add(flow.name, flow)

    def _detach(self, flow: Flow) -> None:
        flows = self._classes[flow.priority]
        flows.remove(flow.name)
        if not flows:
            del self._classes[flow.priority]
            self._priorities.remove(flow.priority)
