"""What a caller prefers: the Accept and Accept-Encoding headers (RFC 9110, 12.4.2 and 12.5). Used by the rendering."""


def qualities(header: str | None) -> dict[str, float]:
    """Weight of each name, from 0 (not wanted) to 1. What cannot be read is skipped: such a header is only advice."""
    found: dict[str, float] = {}
    for entry in (header or "").split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if name and is_weight(weight):
            found[name] = float(weight)
    return found


def is_weight(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and 0 <= float(text) <= 1
