"""The characters that are counted for an input."""

import pytest

from tokenizer_svc.text.framed import Framed, Role
from tokenizer_svc.text.input_sizes import characters_in
from tokenizer_svc.text.sequence import Input

FRAMED = Framed((((Role.FRAME, "<system> "), (Role.QUERY, "qü")), ((Role.FRAME, "\n"), (Role.DOCUMENT, "d🎉c"))))


@pytest.mark.parametrize(
    ("content", "characters"), [("Zoë 🎉", 5), ("", 0), (("ab", "c🎉"), 4), (bytes(12), 3), (FRAMED, 5)]
)
def test_characters_are_code_points_of_what_the_caller_sent(content: Input, characters: int) -> None:
    assert characters_in([content]) == characters
