"""How a naming table works: templates that read and write the names of modules.

A table has one row per kind of module and one column per scheme. A cell is a template such
as ``res{S}{L}_branch2a``; a placeholder's letter says which value stands there and how the
scheme spells it. Reading a name gives the values, writing needs them, so every column
converts to every other.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

Value = int | str
Values = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Codec:
    """How a placeholder spells a value: which one, its pattern, and both directions.

    ``write`` gets all values, because a spelling may depend on another (``blocks``: how
    many blocks the stage has).
    """

    value: str
    pattern: str
    read: Callable[[str], Value]
    write: Callable[[Mapping[str, Value]], str]


def _number(value: str, first: int = 0) -> Codec:
    """Count from ``first`` what the values count from 0 or 1."""
    return Codec(
        value,
        r"\d+",
        lambda text: int(text) - first,
        lambda values: str(int(values[value]) + first),
    )


def _text(value: str, pattern: str) -> Codec:
    return Codec(value, pattern, str, lambda values: str(values[value]))


def _read_letters(text: str) -> int:
    return int(text[1:]) if len(text) > 1 else ord(text) - ord("a")


def _write_letters(values: Mapping[str, Value]) -> str:
    block = int(values["block"])
    if int(values["blocks"]) <= 3 or block == 0:
        return "abc"[block]
    return f"b{block}"


CODECS = {
    "s": _number("stage"),  # 1 to 4
    "S": _number("stage", 1),  # 2 to 5
    "b": _number("block"),  # from 0
    "B": _number("block", 1),  # from 1
    # Caffe's ResNets: a, b, c in a stage of three blocks; a, b1, b2, ... in a longer one.
    "L": Codec("block", r"b\d+|[a-z]", _read_letters, _write_letters),
    "r": _number("rate"),  # parallel convolutions of the head, from 0
    "x": _text("scale", r"(?:_res\d+)?"),  # suffix of a branch of a multi-scale net
    "t": _text("labels", r"[A-Za-z0-9]+"),  # which label set a head is for
}

_PLACEHOLDER = re.compile(r"\{(\w)\}")


@cache
def _compiled(template: str) -> tuple[re.Pattern[str], tuple[Codec, ...]]:
    codecs = tuple(CODECS[match[1]] for match in _PLACEHOLDER.finditer(template))
    literals = _PLACEHOLDER.split(template)[::2]
    pattern = re.escape(literals[0])
    for codec, literal in zip(codecs, literals[1:], strict=True):
        pattern += f"(?P<{codec.value}>{codec.pattern})" + re.escape(literal)
    return re.compile(pattern), codecs


def read(template: str, name: str) -> Values | None:
    """Return the values in ``name``, or None where it is not of the template's form."""
    pattern, codecs = _compiled(template)
    match = pattern.fullmatch(name)
    if match is None:
        return None
    return {codec.value: codec.read(match[codec.value]) for codec in codecs}


def write(template: str, values: Mapping[str, Value]) -> str:
    """Spell a name with the given values."""
    return _PLACEHOLDER.sub(lambda match: CODECS[match[1]].write(values), template)
