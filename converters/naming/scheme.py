"""How a naming table works: templates that read and write the names of modules.

A table has one row per kind of module and one column per scheme. A cell is a template such
as ``res{S}{L}_branch2a``; a placeholder's letter says which value stands there and how the
scheme spells it, or ``{conv|bn}`` lists the spellings of a unit's parts. Reading a name gives the
values, writing needs them, so every column converts to every other.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

# A number in a name has one spelling, and is short: a file must not make us count to billions.
DIGITS = "(?:0|[1-9][0-9]{0,2})"

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
        DIGITS,
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


def _read_branch(text: str) -> int:
    return int(text[1:]) - 1 if text else 0


def _write_branch(values: Mapping[str, Value]) -> str:
    return "" if values["branches"] == 1 else f"_{int(values['rate']) + 1}"


CODECS = {
    "s": _number("stage"),  # 1 to 4
    "S": _number("stage", 1),  # 2 to 5
    "b": _number("block"),  # from 0
    "B": _number("block", 1),  # from 1
    "e": Codec("block", "[12]", int, lambda values: str(values["block"])),  # 1 or 2
    # Caffe's ResNets: a, b, c in a stage of three blocks; a, b1, b2, ... in a longer one.
    "L": Codec("block", rf"b{DIGITS}|[a-z]", _read_letters, _write_letters),
    "r": _number("rate"),  # parallel convolutions of the head, from 0
    "R": _number("rate", 1),  # from 1
    "x": _text("scale", r"(?:_res\d+)?"),  # suffix of a branch of a multi-scale net
    "t": _text("labels", r"[A-Za-z0-9]+(?:_[A-Za-z]+)*"),  # which label set a head is for
    # VGG's heads: no number where there is one of them, else _1, _2, ...
    "n": Codec("rate", rf"(?:_{DIGITS})?", _read_branch, _write_branch),
    "p": _text("tap", r"data|pool[1-4]"),  # what a side branch reads
}

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@cache
def _codec(placeholder: str) -> Codec:
    """Return a letter's codec, or the one that tells a unit's parts by their spellings."""
    if "|" not in placeholder:
        return CODECS[placeholder]
    spelled = placeholder.split("|")
    return Codec(
        "part",
        "|".join(map(re.escape, spelled)),
        spelled.index,
        lambda values: spelled[int(values["part"])],
    )


@cache
def _compiled(template: str) -> tuple[re.Pattern[str], tuple[Codec, ...]]:
    codecs = tuple(_codec(match[1]) for match in _PLACEHOLDER.finditer(template))
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
    return _PLACEHOLDER.sub(lambda match: _codec(match[1]).write(values), template)


# What state dicts hold beside parameters, and why it is left behind.
DROPPED = {"num_batches_tracked": "a training counter, without effect on a frozen statistic"}
ALIAS = "a second name of a tensor, and equal to it"

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Naming:
    """The names of one family's modules.

    Attributes
    ----------
    table
        One row, one kind of module; the first cell is the canonical name.
    columns
        Scheme -> its cell in a row.
    blobs
        Module -> the blob of the Caffe net that its output is.
    marks
        Beginnings of canonical names that tell the family.
    start_marks
        Those that tell it where the head starts afresh, so that the file need not have one.
    head
        Beginnings of the names that belong to the head, which can be started afresh.
    layouts
        The schemes that a state dict can be written in.
    prefixes
        Layouts that are the canonical names with other beginnings.
    programs
        Schemes with a table of their own: the canonical name, theirs.
    aliases
        Layouts that hold tensors a second time: a pattern of names, and the second name.

    """

    table: Rows
    columns: Mapping[str, int]
    blobs: Rows
    marks: tuple[str, ...]
    start_marks: tuple[str, ...]
    head: str | tuple[str, ...]
    layouts: tuple[str, ...]
    prefixes: Mapping[str, Rows] = field(default_factory=dict)
    programs: Mapping[str, Rows] = field(default_factory=dict)
    aliases: Mapping[str, Rows] = field(default_factory=dict)

    def to_canonical(self, scheme: str, module: str) -> tuple[str, Values] | None:
        """Return a module's canonical name and the values in its name; None if not ours."""
        for template, ours in self._templates(scheme):
            values = read(template, module)
            if values is not None:
                return write(ours, values), values
        return None

    def from_canonical(self, scheme: str, module: str, context: Mapping[str, Value]) -> str:
        """Return a canonical module's name in another scheme.

        ``context`` is what names there hold beyond canonical ones, see the family's.
        """
        for template, ours in self._templates(scheme):
            values = read(ours, module)
            if values is not None:
                return _spelled(template, values, context)
        raise KeyError(module)

    def blob_of(self, module: str, context: Mapping[str, Value]) -> str | None:
        """Return the Caffe blob that a module's output is, None where it is none."""
        for ours, blob in self.blobs:
            values = read(ours, module)
            if values is not None:
                return _spelled(blob, values, context)
        return None

    def tells(self, scheme: str, module: str, *, fresh_head: bool = False) -> bool:
        """Tell whether only this family has a module of this name."""
        found = self.to_canonical(scheme, module)
        marks = self.marks + (self.start_marks if fresh_head else ())
        return found is not None and found[0].startswith(marks)

    def known(self, scheme: str, modules: Iterable[str]) -> int:
        """Count the modules whose names are of a scheme."""
        return sum(self.to_canonical(scheme, module) is not None for module in modules)

    def alias_of(self, layout: str, name: str) -> str | None:
        """Return the second name of a state dict's tensor, None where it has none."""
        for pattern, alias in self.aliases.get(layout, ()):
            if match := re.fullmatch(pattern, name):
                return match.expand(alias)
        return None

    def _templates(self, scheme: str) -> Rows:
        """Return a scheme's templates beside the canonical ones."""
        if scheme in self.columns:
            return tuple((row[self.columns[scheme]], row[0]) for row in self.table)
        if scheme in self.programs:
            return tuple((theirs, ours) for ours, theirs in self.programs[scheme])
        return tuple(
            (beginning + row[0].removeprefix(ours), row[0])
            for row in self.table
            for ours, beginning in self.prefixes.get(scheme, ())
            if row[0].startswith(ours)
        )


def _spelled(template: str, values: Values, context: Mapping[str, Value]) -> str:
    blocks = context.get(f"blocks{values.get('stage')}", 0)
    return write(template, {**context, **values, "blocks": blocks})
