"""Reads the comments above the fields of a settings class from its source. Called by heddle.rpc.settings."""

import ast
import inspect
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Documentation:
    """The comment above a field, and the heading of its group."""

    help: str
    heading: str


def read_documentation(cls: type) -> dict[str, Documentation]:
    """Returns comments by field name, including base classes. Empty without source, as in a zipped install."""
    found: dict[str, Documentation] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            found |= parse_fields(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):
            continue
    return found


def parse_fields(source: str) -> dict[str, Documentation]:
    lines = [line.strip() for line in source.splitlines()]
    statement = ast.parse(source).body[0]
    fields: dict[str, Documentation] = {}
    heading = ""
    for node in statement.body if isinstance(statement, ast.ClassDef) else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            start, text = comment_above(lines, node.lineno - 1)
            heading = heading_above(lines, start) or heading
            fields[node.target.id] = Documentation(text, heading)
    return fields


def comment_above(lines: list[str], index: int) -> tuple[int, str]:
    """Returns the first line of the comment directly above line `index`, or `index` without one, and its text."""
    start = index
    while start > 0 and lines[start - 1].startswith("#"):
        start -= 1
    return start, " ".join(line.lstrip("#").strip() for line in lines[start:index])


def heading_above(lines: list[str], index: int) -> str:
    """Returns the comment above line `index` that is separated from it by an empty line."""
    end = index
    while end > 0 and not lines[end - 1]:
        end -= 1
    return comment_above(lines, end)[1] if end < index else ""
