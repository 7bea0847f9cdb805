"""All entries that are known: the shipped registry and the users' own."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from ...proto.errors import FormatError, UsageError, listing
from .lint import unsound
from .parse import read_entries
from .schema import Entry

SHIPPED = Path(__file__).parents[2] / "registry.yaml"
VARIABLE = "DEEPLAB_ZOO_REGISTRY"


@dataclass(frozen=True, slots=True)
class Registry:
    """Entries by name, in the order of their files; ``aliases``: other names of theirs."""

    entries: Mapping[str, Entry]
    aliases: Mapping[str, str]

    def find(self, name: str) -> Entry:
        """Return the entry called ``name``, or suggest the nearest ones.

        Raises
        ------
        UsageError
            There is none.

        """
        found = self.entries.get(self.aliases.get(name, name))
        if found is not None:
            return found
        near = get_close_matches(name.lower(), [*self.entries, *self.aliases], n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UsageError(f"{name!r}: no such entry. {hint}`deeplab-zoo list` shows all.")


def load_registry(files: Iterable[str | Path] = ()) -> Registry:
    """Read the shipped registry, those that ``DEEPLAB_ZOO_REGISTRY`` names, and ``files``.

    Raises
    ------
    FormatError
        A file is damaged, two entries have one name, or one is `lint.unsound`.

    """
    own = [one for one in os.environ.get(VARIABLE, "").split(os.pathsep) if one]
    paths = dict.fromkeys(Path(one).expanduser().resolve() for one in (SHIPPED, *own, *files))
    known = assemble([entry for path in paths for entry in read_entries(path)])
    problems = [
        f"{entry.place}: {line}" for entry in known.entries.values() for line in unsound(entry)
    ]
    if problems:
        raise FormatError(f"registry: {len(problems)} problems:\n{listing(problems)}")
    return known


def assemble(entries: Iterable[Entry]) -> Registry:
    """Make a registry of entries: names are unique, and what they refer to is there."""
    named: dict[str, Entry] = {}
    aliases: dict[str, str] = {}
    problems = []
    for entry in entries:
        for name in entry.names:
            known = named.get(aliases.get(name, name))
            if known is not None:
                problems.append(f"{name}: in {entry.place} and in {known.place}")
            if name == entry.name:
                named[name] = entry
            elif name not in named:
                aliases[name] = entry.name
    for entry in list(named.values()):
        owner = named.get(entry.uses) if entry.uses else None
        if owner is not None and not entry.artifacts and owner.artifacts:
            named[entry.name] = replace(entry, artifacts=owner.artifacts)
        elif entry.uses:
            problems.append(f"{entry.name}: uses {entry.uses!r}, which is no entry with files")
        elif not entry.artifacts:
            problems.append(f"{entry.name}: has neither artifacts nor uses")
    if problems:
        raise FormatError(f"registry: {len(problems)} problems:\n{listing(problems)}")
    return Registry(named, aliases)
