"""Text becomes Markdown that shows it as it is, whatever characters it has."""

import re


def text(value: object) -> str:
    """Return one line of plain text; what would mark it up or end a table's cell is escaped."""
    return re.sub(r"[\\|<*`]", r"\\\g<0>", " ".join(str(value).split()))


def row(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(text, cells))} |"
