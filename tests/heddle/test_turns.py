"""Names take turns, names with the same prefix share one, and empty groups are removed."""

import itertools

import hypothesis.strategies as st
from hypothesis import given

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


def make_turns(weights: dict[str, int]) -> Turns[str]:
    turns: Turns[str] = Turns()
    for name, weight in weights.items():
        turns.add(name, name, weight)
    return turns


def test_all_work_of_equal_neighbours_comes_before_a_new_name() -> None:
    turns = make_turns({f"caller/{number}": 10 for number in range(50)})
    assert turns.weight_before("caller/new", 10) == 500


def test_a_bulk_gets_no_more_before_a_name_than_the_name_asks_for() -> None:
    turns = make_turns({"bulk/1": 10**6})
    assert turns.weight_before("single/1", 10) == 10
    assert turns.weight_before("bulk/2", 10) == 10
    assert turns.weight_before("single/1", 10**7) == 10**6


def test_callers_share_before_their_requests_do() -> None:
    turns = make_turns({**{f"many/{number}": 10 for number in range(50)}, "few/1": 10})
    assert turns.weight_before("few/1", 10) == 10
    assert turns.weight_before("few/2", 10) == 10 + 20
    assert turns.weight_before("other/1", 10) == 10 + 10


NAMES = st.sampled_from(["a", "b/1", "b/2", "b/c/1", "b/c/2", "d/"])


@given(st.lists(NAMES, unique=True), NAMES)
def test_turns_before_is_an_upper_bound(names: list[str], new: str) -> None:
    turns = make_turns(dict.fromkeys([name for name in names if name != new], 1))
    before = turns.turns_before(new)
    assert before <= len(turns)
    turns.add(new, new)
    assert list(turns).index(new) <= before


CHANGES = st.lists(st.tuples(NAMES, st.integers(0, 100)), max_size=20)


@given(CHANGES, NAMES, st.integers(1, 1000))
def test_weights_follow_additions_changes_and_removals(changes: list[tuple[str, int]], name: str, own: int) -> None:
    turns, weights = make_turns({}), dict[str, int]()
    for changed, weight in changes:
        if weight % 3 == 0:
            turns.remove(changed)
            weights.pop(changed, None)
        elif changed in weights:
            turns.change_weight(changed, weight - weights[changed])
            weights[changed] = weight
        else:
            turns.add(changed, changed, weight)
            weights[changed] = weight
    assert turns.weight == sum(weights.values())
    before = turns.weight_before(name, own)
    assert 0 <= before <= turns.weight - weights.get(name, 0)
    assert before <= turns.weight_before(name, own + 1)
    assert turns.weight_before(name, 10**9) == turns.weight - weights.get(name, 0)
