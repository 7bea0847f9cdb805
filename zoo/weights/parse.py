"""YAML to the records of `schema`: every problem of a file in one error.

The records' own type hints say what a key may hold, so a field is stated once. Unknown and
duplicate keys are refused, since a misspelt digest would otherwise be no digest.
"""

import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ...proto.errors import FormatError, StorageError, ZooError, listing
from .schema import Claim, Entry

VERSION = 1
INLINE = Claim  # Its keys stand among those of the record that has one.
COMPUTED = {"place"}
_shown = Repr()  # YAML's anchors make much of a few lines.
_shown.maxstring, _shown.maxother, _shown.maxlevel = 100, 100, 2
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Read the entries of a registry file.

    Raises
    ------
    FormatError
        The file is not a registry; all its problems are listed.

    """
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read the text of a registry file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ZooError(f"{path}: no such registry file.") from None
    except UnicodeDecodeError:
        raise FormatError(f"{path}: is not UTF-8 text, expected a registry in YAML.") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error


def parse(text: str, place: str) -> tuple[Entry, ...]:
    """Parse the text of a registry; ``place`` is what errors call it."""
    problems: list[str] = []
    try:
        found = yaml.load(text, _Loader)
    # Values that are not what their tag says, such as !!int abc, are bare errors.
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise FormatError(f"{place}: not sound YAML: {error}") from None
    if not isinstance(found, dict) or found.get("schema_version") != VERSION:
        raise FormatError(f"{place}: expected a registry with schema_version: {VERSION}.")
    rows = found.get("entries") or []
    if not isinstance(rows, list):
        raise FormatError(f"{place}: entries: {_shown.repr(rows)}, expected a list.")
    unknown = sorted(map(str, set(found) - {"schema_version", "entries"}))
    problems += [f"unknown key {name!r}" for name in unknown]
    entries = []
    for at, fields_ in enumerate(rows):
        name = fields_.get("name") if isinstance(fields_, dict) else None
        name = name if isinstance(name, str) else f"entry {at}"
        entry = _record(Entry, fields_, name, problems, {"place": place})
        entries += [] if entry is None else [entry]
    if problems:
        raise FormatError(f"{place}: {len(problems)} problems:\n{listing(problems)}")
    return tuple(entries)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, which refuses what the YAML standard calls an error: duplicate keys.

    Dates stay text, as they are written.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}", key_node.start_mark
                )
            seen.add(key)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


@cache
def _fields(cls: type) -> dict[str, tuple[Any, bool]]:
    """Return a record's keys: their type, and whether they are needed."""
    hints = get_type_hints(cls)
    found: dict[str, tuple[Any, bool]] = {}
    for one in fields(cls):
        if hints[one.name] is INLINE:
            found |= _fields(INLINE)
        elif one.name not in COMPUTED:
            needed = one.default is MISSING and one.default_factory is MISSING
            found[one.name] = hints[one.name], needed
    return found


@cache
def _inline(cls: type) -> str | None:
    """Return the field whose keys stand among the record's own."""
    hints = get_type_hints(cls)
    return next((one.name for one in fields(cls) if hints[one.name] is INLINE), None)


def _record(
    cls: type, value: object, place: str, problems: list[str], more: Mapping[str, Any] | None = None
) -> Any:
    """Make one record; None, with the problems noted, where it cannot be."""
    if not isinstance(value, dict):
        problems.append(f"{place}: {_shown.repr(value)}, expected a mapping")
        return None
    known = _fields(cls)
    before = len(problems)
    problems += [f"{place}: unknown key {_shown.repr(key)}" for key in value if key not in known]
    problems += [
        f"{place}: {name} is missing"
        for name, (_, needed) in known.items()
        if needed and name not in value
    ]
    made = {
        name: _value(known[name][0], value[name], f"{place}: {name}", problems)
        for name in known
        if name in value
    }
    if len(problems) > before:
        return None
    if name := _inline(cls):
        made[name] = INLINE(**{key: made.pop(key) for key in _fields(INLINE) if key in made})
    return cls(**made, **(more or {}))


def _value(hint: Any, value: object, place: str, problems: list[str]) -> Any:
    """Make one value of the type that the hint says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (one for one in arguments if one is not type(None))
        return _value(hint, value, place, problems)
    if origin is Literal:
        if value not in arguments:
            problems.append(
                f"{place}: {_shown.repr(value)}, expected one of {', '.join(arguments)}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list):
            problems.append(f"{place}: {_shown.repr(value)}, expected a list")
            return ()
        return tuple(
            _value(arguments[0], one, f"{place}[{at}]", problems) for at, one in enumerate(value)
        )
    if origin is not None:  # Mapping[str, str]
        if not isinstance(value, dict):
            problems.append(f"{place}: {_shown.repr(value)}, expected a mapping")
            return {}
        return {
            _value(str, key, place, problems): _value(str, one, f"{place}: {key}", problems)
            for key, one in value.items()
        }
    if hint in _WORDS:
        number = hint is float and type(value) is int and value.bit_length() < 1024
        if type(value) is not hint and not number:
            quote = " (put it in quotes)" if hint is str else ""
            problems.append(f"{place}: {_shown.repr(value)}, expected {_WORDS[hint]}{quote}")
        return float(value) if number else value  # type: ignore[arg-type]
    return _record(hint, value, place, problems)
