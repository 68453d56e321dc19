"""Who is next: an order of names in which those that begin alike share one turn. Engines and tokenizer pods keep one.

A name is a path, such as `caller/request`. Groups of names with the same beginning take turns as one, and within a
group its members do, so that a caller has one share however many requests it sends at once. See ItemContext.flow.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Of a longer path, what follows the last of them is one name.
DEPTH_MAX = 4

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Leaf(Generic[T]):
    value: T
    group: "Group[T]"


@dataclass(slots=True, eq=False)
class Group(Generic[T]):
    """In the order of their turns. Only that of all is ever empty."""

    name: str  # with the slash at its end; "" of all
    parent: "Group[T] | None" = None
    members: "OrderedDict[str, Leaf[T] | Group[T]]" = field(default_factory=OrderedDict)

    def in_turns(self) -> Iterator[T]:
        """In the order in which each has its first turn. Looks at no more of them than it is asked for."""
        later: deque[Iterator[T]] = deque()
        for member in self.members.values():
            if isinstance(member, Leaf):
                yield member.value
            else:
                values = member.in_turns()
                yield next(values)
                later.append(values)
        while later:
            values = later.popleft()
            for value in values:
                yield value
                later.append(values)
                break


class Turns(Generic[T]):
    """Whatever waits, each method takes the same time. Not thread-safe."""

    def __init__(self) -> None:
        self._leaves: dict[str, Leaf[T]] = {}
        self._all: Group[T] = Group("")

    def __len__(self) -> int:
        return len(self._leaves)

    def __iter__(self) -> Iterator[T]:
        """In the order in which each has its first turn."""
        return self._all.in_turns()

    @property
    def front(self) -> T:
        """Whose turn it is."""
        member: Leaf[T] | Group[T] = self._all
        while isinstance(member, Group):
            member = next(iter(member.members.values()))
        return member.value

    def get(self, name: str) -> T | None:
        leaf = self._leaves.get(name)
        return leaf.value if leaf else None

    def add(self, name: str, value: T) -> None:
        """At the end. The name is new."""
        group = self._group_of(name)
        leaf = Leaf(value, group)
        self._leaves[name] = group.members[name] = leaf

    def remove(self, name: str) -> None:
        """And the groups that this leaves empty. No effect if it is not there."""
        leaf = self._leaves.pop(name, None)
        group = leaf.group if leaf else None
        while group is not None:
            del group.members[name]
            if group.members:
                return
            name, group = group.name, group.parent

    def to_end(self, name: str) -> None:
        """Of its group, and so each group that it is in: it has had its turn."""
        self._move(name, last=True)

    def to_front(self, name: str) -> None:
        self._move(name, last=False)

    def _move(self, name: str, *, last: bool) -> None:
        group: Group[T] | None = self._leaves[name].group
        while group is not None:
            group.members.move_to_end(name, last)
            name, group = group.name, group.parent

    def _group_of(self, name: str) -> Group[T]:
        """Made where there is none."""
        group, end = self._all, 0
        for part in name.split("/", DEPTH_MAX - 1)[:-1]:
            end += len(part) + 1
            prefix = name[:end]
            member = group.members.get(prefix)
            if not isinstance(member, Group):
                member = group.members[prefix] = Group(prefix, group)
            group = member
        return group
