"""Round robin over named values, in which names with the same prefix share one turn. Used by the schedulers of engines
and tokenizer pods.

A name is a path, such as `caller/request`. Names with the same prefix form a group. A group takes turns with its
neighbours as if it were one name, and its members take turns inside it. So a caller gets one share, however many
requests it sends at once. See ItemContext.flow.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# Levels of groups. In a longer path, the rest is taken as one name.
DEPTH_MAX = 4

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Leaf(Generic[T]):
    value: T
    group: "Group[T]"


@dataclass(slots=True, eq=False)
class Group(Generic[T]):
    """Members in the order of their turns. Only the root is ever empty."""

    name: str  # with a slash at the end; "" is the root
    parent: "Group[T] | None" = None
    members: "OrderedDict[str, Leaf[T] | Group[T]]" = field(default_factory=OrderedDict)

    def in_turns(self) -> Iterator[T]:
        """The values in the order of their first turns. Lazy: the cost is that of the values that are taken."""
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
    """The time of each method does not depend on how many values there are. Not thread-safe."""

    def __init__(self) -> None:
        self._leaves: dict[str, Leaf[T]] = {}
        self._all: Group[T] = Group("")

    def __len__(self) -> int:
        return len(self._leaves)

    def __iter__(self) -> Iterator[T]:
        """The values in the order of their first turns."""
        return self._all.in_turns()

    @property
    def front(self) -> T:
        """The value whose turn it is."""
        member: Leaf[T] | Group[T] = self._all
        while isinstance(member, Group):
            member = next(iter(member.members.values()))
        return member.value

    def get(self, name: str) -> T | None:
        leaf = self._leaves.get(name)
        return leaf.value if leaf else None

    def add(self, name: str, value: T) -> None:
        """Adds the value at the end. The name must be new."""
        group = self._group_of(name)
        leaf = Leaf(value, group)
        self._leaves[name] = group.members[name] = leaf

    def remove(self, name: str) -> None:
        """Removes the value, and groups that become empty. Does nothing if the name is not there."""
        leaf = self._leaves.pop(name, None)
        group = leaf.group if leaf else None
        while group is not None:
            del group.members[name]
            if group.members:
                return
            name, group = group.name, group.parent

    def move_to_end(self, name: str) -> None:
        """Moves the name to the end of its group, and the group to the end of its own: it has had its turn."""
        self._move(name, last=True)

    def move_to_front(self, name: str) -> None:
        self._move(name, last=False)

    def _move(self, name: str, *, last: bool) -> None:
        group: Group[T] | None = self._leaves[name].group
        while group is not None:
            group.members.move_to_end(name, last)
            name, group = group.name, group.parent

    def _group_of(self, name: str) -> Group[T]:
        """Finds the group of a name, or makes it."""
        group, end = self._all, 0
        for part in name.split("/", DEPTH_MAX - 1)[:-1]:
            end += len(part) + 1
            prefix = name[:end]
            member = group.members.get(prefix)
            if not isinstance(member, Group):
                member = group.members[prefix] = Group(prefix, group)
            group = member
        return group
