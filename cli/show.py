"""How the commands print."""

import json
import math
import re
from typing import Any

from ..proto.errors import UsageError


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


def as_json(value: object) -> str:
    """Write JSON that every parser reads: NaN and infinity become null."""
    return json.dumps(_strict(value), indent=1)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(one) for one in value]
    return value


def sides(text: str) -> tuple[int, int]:
    """Read ``--size``: height and width."""
    found = re.fullmatch(r"\s*(\d+)\s*[,x]\s*(\d+)\s*", text)
    if found is None:
        raise UsageError(f"--size {text}: expected height and width, such as 321,481.")
    return int(found[1]), int(found[2])
