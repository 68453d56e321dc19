"""Names take turns, names with the same prefix share one, and empty groups are removed."""

import itertools

from heddle.turns import DEPTH_MAX, Group, Turns


def turns_of(*names: str) -> Turns[str]:
    turns: Turns[str] = Turns()
    for name in names:
        turns.add(name, name)
    return turns


def order(turns: Turns[str], count: int) -> list[str]:
    taken = []
    for _ in range(count):
        taken.append(turns.front)
        turns.move_to_end(turns.front)
    return taken


def test_groups_have_one_turn_among_others_and_members_take_turns_inside() -> None:
    turns = turns_of("a/1", "a/2/x", "a/2/y", "b", "c/1")
    assert order(turns, 9) == ["a/1", "b", "c/1", "a/2/x", "b", "c/1", "a/1", "b", "c/1"]
    assert order(turns, 1) == ["a/2/y"]


def test_the_order_of_first_turns_is_that_in_which_they_come() -> None:
    names = ["a/1", "b/1/x", "b/1/y", "c", "a/2", "b/2", "a/3", "d/1"]
    listed = list(turns_of(*names))
    assert sorted(listed) == sorted(names)
    assert list(dict.fromkeys(order(turns_of(*names), 40))) == listed


def test_the_first_values_of_many_are_in_order() -> None:
    turns = turns_of(*(f"{number % 100}/{number}" for number in range(1000)))
    assert list(itertools.islice(turns, 3)) == ["0/0", "1/1", "2/2"]


def test_moving_to_the_front_also_moves_the_group() -> None:
    turns = turns_of("a/1", "a/2", "b/1", "b/2")
    turns.move_to_front("b/2")
    assert order(turns, 4) == ["b/2", "a/1", "b/1", "a/2"]


def test_a_name_can_also_be_the_prefix_of_others() -> None:
    names = ["a", "a/", "a/b", "a//", "a/b/", "/", ""]
    turns = turns_of(*names)
    assert sorted(turns) == sorted(names)
    for name in names:
        assert turns.get(name) == name
        turns.remove(name)
        turns.remove(name)
        assert turns.get(name) is None
    assert not turns
    assert not turns._all.members


def test_paths_are_split_down_to_the_depth_limit() -> None:
    turns = turns_of(*("/".join("x" * 1000) + str(number) for number in range(3)))
    member, depth = next(iter(turns._all.members.values())), 1
    while isinstance(member, Group):
        member, depth = next(iter(member.members.values())), depth + 1
    assert depth == DEPTH_MAX
    assert len(list(turns)) == 3
