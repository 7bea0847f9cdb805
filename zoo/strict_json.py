"""Values become JSON that every parser reads: what is not finite is null."""

import json
import math
from typing import Any


def dumps(value: object) -> str:
    """Write JSON; NaN and infinity become null."""
    return json.dumps(finite(value), indent=1)


def finite(value: Any) -> Any:
    """Return the value with None for every float in it that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return value
