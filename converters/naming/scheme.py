"""How a naming table works: templates that read and write the names of modules.

A table has one row per kind of module and one column per scheme. A cell is a template such
as ``res{stage:+1}{block:letters}_branch2a``; a placeholder is ``{value}`` or
``{value:codec}``, and the codec says how the scheme spells the value. Reading a name gives
the values, writing needs them, so every column converts to every other.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

Value = int | str
Values = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Codec:
    """How a scheme spells a value: its pattern, and both directions.

    ``write`` gets all values, because a spelling may depend on another (``blocks``: how
    many blocks the stage has).
    """

    pattern: str
    read: Callable[[str], Value]
    write: Callable[[str, Mapping[str, Value]], str]


def _read_letters(text: str) -> int:
    return int(text[1:]) if len(text) > 1 else ord(text) - ord("a")


def _write_letters(name: str, values: Mapping[str, Value]) -> str:
    block = int(values[name])
    if int(values["blocks"]) <= 3 or block == 0:
        return "abc"[block]
    return f"b{block}"


CODECS = {
    "": Codec(r"\d+", int, lambda name, values: str(values[name])),
    "+1": Codec(r"\d+", lambda text: int(text) - 1, lambda name, values: str(int(values[name]) + 1)),
    # Caffe's ResNets: a, b, c in a stage of three blocks; a, b1, b2, ... in a longer one.
    "letters": Codec(r"b\d+|[a-z]", _read_letters, _write_letters),
    "word": Codec(r"[A-Za-z0-9]+", str, lambda name, values: str(values[name])),
    # The branch of a multi-scale net; the branch of the original size has no suffix.
    "branch": Codec(r"(?:_res\d+)?", str, lambda name, values: str(values[name])),
}

_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^}]*))?\}")


@cache
def _compiled(template: str) -> tuple[re.Pattern[str], tuple[tuple[str, Codec], ...]]:
    fields = tuple(
        (match[1], CODECS[match[2] or ""]) for match in _PLACEHOLDER.finditer(template)
    )
    literals = _PLACEHOLDER.split(template)[::3]
    pattern = re.escape(literals[0])
    for (name, codec), literal in zip(fields, literals[1:], strict=True):
        pattern += f"(?P<{name}>{codec.pattern})" + re.escape(literal)
    return re.compile(pattern), fields


def read(template: str, name: str) -> Values | None:
    """Return the values in ``name``, or None where it is not of the template's form."""
    pattern, fields = _compiled(template)
    match = pattern.fullmatch(name)
    if match is None:
        return None
    return {field: codec.read(match[field]) for field, codec in fields}


def write(template: str, values: Mapping[str, Value]) -> str:
    """Spell a name with the given values."""
    _, fields = _compiled(template)
    spelled = iter([codec.write(field, values) for field, codec in fields])
    return _PLACEHOLDER.sub(lambda _: next(spelled), template)
