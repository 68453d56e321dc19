"""Sequences are grouped into submissions: each once, in order, within the limits, in as few groups as possible."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.tasks.grouping import GroupLimits, divide, group_sequences
from tokenizer_svc.text.sequences import Result, TokenSequence, TokenSequences, pack_ids

LIMITS = GroupLimits(32, 4096)


def ranges(*lengths: int) -> list[range]:
    return divide(lengths, [0] * len(lengths), LIMITS)


def test_short_sequences_are_grouped_by_number() -> None:
    assert ranges(*[5] * 70) == [range(32), range(32, 64), range(64, 70)]


def test_long_sequences_are_grouped_by_tokens_and_a_longer_one_goes_alone() -> None:
    expected = [range(2), range(2, 3), range(3, 4), range(4, 5), range(5, 7)]
    assert ranges(2000, 2096, 1, 5000, 4096, 4095, 1) == expected


def test_a_group_has_one_number_of_prompt_tokens() -> None:
    assert divide([4, 4, 4, 4], [2, 2, 0, 2], LIMITS) == [range(2), range(2, 3), range(3, 4)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 1)), min_size=1, max_size=80),
    sequences_max=st.integers(1, 12),
    tokens_max=st.integers(1, 90),
)
def test_groups_are_whole_in_order_within_limits_and_full(
    sizes: list[tuple[int, int]], sequences_max: int, tokens_max: int
) -> None:
    lengths, prompts = zip(*sizes, strict=True)
    found = divide(lengths, prompts, GroupLimits(sequences_max, tokens_max))
    assert [index for range_ in found for index in range_] == list(range(len(sizes)))
    for range_ in found:
        own = lengths[range_.start : range_.stop]
        assert len(own) <= sequences_max
        assert len(own) == 1 or sum(own) <= tokens_max
        assert len(set(prompts[range_.start : range_.stop])) == 1
        if range_.stop < len(sizes):  # the next sequence would not have fitted
            is_full = len(own) == sequences_max or sum(own) + lengths[range_.stop] > tokens_max
            assert is_full or prompts[range_.stop] != prompts[range_.start]


sequences = st.builds(
    lambda ids, has_types, truncated, prompt: TokenSequence(
        pack_ids(ids), bytes([1] * len(ids)) if has_types else b"", truncated, prompt
    ),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
)


@given(st.lists(sequences, min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 30))
def test_columns_give_back_their_sequences_whole_and_divided(
    made_of: list[TokenSequence], sequences_max: int, tokens_max: int
) -> None:
    columns = TokenSequences.from_results(made_of)
    assert list(columns) == made_of
    assert columns.tokens == sum(sequence.tokens for sequence in made_of)
    groups = group_sequences(7, columns, GroupLimits(sequences_max, tokens_max))
    assert [result for group in groups for result in group.sequences] == made_of
    for group, following in pairwise(groups):
        assert group.start + len(group.sequences) == following.start
    assert groups[0].start == 7


def test_errors_keep_their_place_among_sequences() -> None:
    error = HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty")
    made_of: list[Result] = [TokenSequence(pack_ids([1, 2])), error, TokenSequence(pack_ids([3]), b"\1")]
    columns = TokenSequences.from_results(made_of)
    assert list(columns) == made_of
    assert list(columns.lengths) == [2, 0, 1]
