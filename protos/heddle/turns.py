"""Round robin over named values, in which names with the same prefix share one turn. Used by the schedulers of engines
and tokenizer pods.

A name is a path, such as `caller/request`. Names with the same prefix form a group. A group takes turns with its
neighbours as if it were one name, and its members take turns inside it. So a caller gets one share, however many
requests it sends at once. See ItemContext.flow.

The weight of a value is the work that waits under its name. `weight_before` estimates from the weights how much work of
others is served before the work of a name.
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
    weight: int


@dataclass(slots=True, eq=False)
class Group(Generic[T]):
    """Members in the order of their turns. Only the root is ever empty."""

    name: str  # with a slash at the end; "" is the root
    parent: "Group[T] | None" = None
    members: "OrderedDict[str, Leaf[T] | Group[T]]" = field(default_factory=OrderedDict)
    weight: int = 0  # the sum of its members

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

    def values(self) -> list[T]:
        """The values in the order in which they were added. May be called from another thread."""
        return [leaf.value for leaf in tuple(self._leaves.values())]

    @property
    def weight(self) -> int:
        """The weight of all values."""
        return self._all.weight

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

    def weight_before(self, name: str, own: int) -> int:
        """Estimates the weight of others that is served before `own` is served under this name, which may be new. In
        each group, every other member gets as much as this name's part of it, if it has as much. The estimate assumes
        that the members of a group have equal weights."""
        groups, leaf = self._path_of(name), self._leaves.get(name)
        inside, is_there = (leaf.weight, True) if leaf else (0, False)
        total = own
        for group in reversed(groups):
            total += min(group.weight - inside, (len(group.members) - is_there) * total)
            inside, is_there = group.weight, True
        return total - own

    def turns_before(self, name: str) -> int:
        """The most turns that others can get before the first turn of this name, which must be new."""
        groups, turns = self._path_of(name), 1
        for number, group in enumerate(reversed(groups)):
            turns *= len(group.members) + (number == 0)
        return min(turns - 1, len(self._leaves))

    def add(self, name: str, value: T, weight: int = 0) -> None:
        """Adds the value at the end. The name must be new."""
        group = self._all
        group.weight += weight
        for prefix in prefixes(name):
            member = group.members.get(prefix)
            if not isinstance(member, Group):
                member = group.members[prefix] = Group(prefix, group)
            member.weight += weight
            group = member
        self._leaves[name] = group.members[name] = Leaf(value, group, weight)

    def change_weight(self, name: str, change: int) -> None:
        leaf = self._leaves[name]
        leaf.weight += change
        group: Group[T] | None = leaf.group
        while group is not None:
            group.weight += change
            group = group.parent

    def remove(self, name: str) -> None:
        """Removes the value, and groups that become empty. Does nothing if the name is not there."""
        leaf = self._leaves.pop(name, None)
        if leaf is None:
            return
        group: Group[T] | None = leaf.group
        is_empty = True  # what has this name
        while group is not None:
            group.weight -= leaf.weight
            if is_empty:
                del group.members[name]
                is_empty = not group.members
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

    def _path_of(self, name: str) -> "list[Group[T]]":
        """The groups of a name that exist, from the root."""
        path = [self._all]
        for prefix in prefixes(name):
            member = path[-1].members.get(prefix)
            if not isinstance(member, Group):
                break
            path.append(member)
        return path


def prefixes(name: str) -> list[str]:
    """Returns `a/` and `a/b/` for `a/b/c`."""
    found, end = [], 0
    for part in name.split("/", DEPTH_MAX - 1)[:-1]:
        end += len(part) + 1
        found.append(name[:end])
    return found
