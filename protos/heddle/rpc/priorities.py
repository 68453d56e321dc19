"""How urgent a call is, as text: in the metadata of a unary call, in an HTTP header and in a file of keys. See
ItemContext.priority.
"""

PRIORITY_MAX = 2**32 - 1
DIGITS_MAX = len(str(PRIORITY_MAX))


def is_priority(text: str) -> bool:
    """Whether it is a whole number from 0 to PRIORITY_MAX. Python reads no number of thousands of digits, so the length
    is checked first."""
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and int(text) <= PRIORITY_MAX
