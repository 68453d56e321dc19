"""The tickets that wait: by priority, within that by flow, and the flows in the order of their turns.

The name of a flow is a path, such as `caller/request`. Groups of flows with the same beginning take turns as one, and
within a group its members do, so that a caller has one share however many requests it sends at once.

The scheduler has one `Flows`, and decides what leaves it. Whatever waits, each method takes the same time.
"""

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine_svc.ticket import Ticket

# Of a longer path, what follows the last of them is one name.
DEPTH_MAX = 4


@dataclass(slots=True, eq=False)
class Group:
    """Flows, and groups of them, in the order of their turns. None of them is empty."""

    name: str  # with the slash at its end; "" of a whole class
    parent: "Group | None" = None
    members: "OrderedDict[str, Flow | Group]" = field(default_factory=OrderedDict)

    def in_turns(self) -> "Iterator[Flow]":
        """Its flows in the order in which each has its first turn. Looks at no more of them than it is asked for."""
        later: deque[Iterator[Flow]] = deque()
        for member in self.members.values():
            if isinstance(member, Flow):
                yield member
            else:
                flows = member.in_turns()
                yield next(flows)
                later.append(flows)
        while later:
            flows = later.popleft()
            if (flow := next(flows, None)) is not None:
                yield flow
                later.append(flows)


@dataclass(slots=True, eq=False)
class Flow:
    """Waiting tickets of one name, first in first out. Ordered dict: a cancelled one leaves from the middle."""

    name: str
    priority: int
    tickets: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)
    tokens: int = 0
    group: Group | None = None  # while others can see it

    @property
    def first(self) -> Ticket:
        return next(iter(self.tickets))


@dataclass(slots=True, eq=False)
class Class:
    """The flows of one priority."""

    flows: dict[str, Flow] = field(default_factory=dict)  # by their whole name
    root: Group = field(default_factory=lambda: Group(""))


class Flows:
    """None of its flows, groups and classes is empty. Not thread-safe."""

    def __init__(self, bulk_tokens: int) -> None:
        """A flow with more than so many tokens is a bulk."""
        self.items = 0
        self.tokens = 0
        self.bulks = 0
        self._bulk_tokens = bulk_tokens
        self._classes: dict[int, Class] = {}
        self._priorities: list[int] = []  # of the classes, sorted

    def __bool__(self) -> bool:
        return bool(self._priorities)

    @property
    def front(self) -> Flow:
        """Whose turn it is."""
        member: Flow | Group = self._classes[self._priorities[0]].root
        while isinstance(member, Group):
            member = next(iter(member.members.values()))
        return member

    def of_first_class(self) -> Iterator[Flow]:
        """In the order of their turns."""
        return self._classes[self._priorities[0]].root.in_turns()

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
        """Its first ticket leaves, and the flow goes to the end, and so do the groups that it is in."""
        ticket = flow.first
        move(flow, last=True)
        self.remove(ticket)
        return ticket

    def set_aside(self, flow: Flow) -> None:
        """Others are in front, until it is put back."""
        self._detach(flow)

    def put_back(self, flow: Flow) -> None:
        """In front of all of its class."""
        self._attach(flow)
        move(flow, last=False)

    def _flow_of(self, ticket: Ticket) -> Flow | None:
        of_class = self._classes.get(ticket.priority)
        return of_class.flows.get(ticket.flow) if of_class else None

    def _count(self, flow: Flow, items: int, tokens: int) -> None:
        was_bulk = self.is_bulk(flow)
        flow.tokens += tokens
        self.items += items
        self.tokens += tokens
        self.bulks += self.is_bulk(flow) - was_bulk

    def _attach(self, flow: Flow) -> None:
        of_class = self._classes.get(flow.priority)
        if of_class is None:
            of_class = self._classes[flow.priority] = Class()
            insort(self._priorities, flow.priority)
        of_class.flows[flow.name] = flow
        flow.group = group_for(flow.name, of_class.root)
        flow.group.members[flow.name] = flow

    def _detach(self, flow: Flow) -> None:
        of_class = self._classes[flow.priority]
        del of_class.flows[flow.name]
        name, group = flow.name, flow.group
        while group is not None:
            del group.members[name]
            if group.members:
                return
            name, group = group.name, group.parent
        del self._classes[flow.priority]
        self._priorities.remove(flow.priority)


def group_for(name: str, root: Group) -> Group:
    """The group of a flow of this name, made where there is none."""
    group, end = root, 0
    for part in name.split("/", DEPTH_MAX - 1)[:-1]:
        end += len(part) + 1
        prefix = name[:end]
        member = group.members.get(prefix)
        if not isinstance(member, Group):
            member = group.members[prefix] = Group(prefix, group)
        group = member
    return group


def move(flow: Flow, *, last: bool) -> None:
    """To the end of its group, or to the front, and so each group that it is in."""
    name, group = flow.name, flow.group
    while group is not None:
        group.members.move_to_end(name, last)
        name, group = group.name, group.parent
