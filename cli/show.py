"""How the commands print."""

from ..zoo.strict_json import dumps as as_json

__all__ = ["as_json", "size"]


def size(count: int) -> str:
    """Write a number of bytes as people read it: ``176.7 MB``."""
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000 or unit == "GB":
            break
    return f"{value:.1f} {unit}"
