"""The characters that are counted for an input."""

import pytest

from tokenizer_svc.text.inputs import Input, PromptedPair, Role, count_characters

FIRST = ((Role.PROMPT, "<system> "), (Role.QUERY, "qü"))
SECOND = ((Role.PROMPT, "\n"), (Role.DOCUMENT, "d🎉c"))


@pytest.mark.parametrize(
    ("content", "characters"),
    [("Zoë 🎉", 5), ("", 0), (("ab", "c🎉"), 4), (bytes(12), 3), (PromptedPair((FIRST, SECOND)), 5)],
)
def test_characters_are_the_code_points_that_the_caller_sent(content: Input, characters: int) -> None:
    assert count_characters([content]) == characters
