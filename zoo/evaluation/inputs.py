"""What a user names becomes pictures to segment: files, folders, globs, a list on stdin.

Each has a name without suffix that results are called after; of a folder's pictures it is the
path within the folder.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ...proto.errors import UsageError, listing
from ..data.lists import PHOTOS


class Input(NamedTuple):
    """A picture, and what its results are called: a relative path without suffix."""

    path: Path
    name: Path


def find(given: Sequence[str], listed: Iterable[str] = ()) -> list[Input]:
    """Return the pictures that are meant, each once, in the order given.

    Parameters
    ----------
    given
        Files, folders (searched through, hidden ones left out), globs (``**`` too), or ``-``
        for the lines of ``listed``.
    listed
        What standard input has: one file, folder or glob per line.

    Raises
    ------
    UsageError
        Something does not exist or holds no picture, or two pictures have one name.

    """
    found: dict[Path, Input] = {}
    problems = []
    for one in given:
        for text in (line.rstrip("\r\n") for line in listed) if one == "-" else (one,):
            if not text.strip():
                continue
            inputs = _of(text)
            if not inputs:
                there = Path(text).exists() or is_glob(text)
                problems.append(f"{text}: {'holds no picture' if there else 'does not exist'}")
            for each in inputs:
                found.setdefault(each.path, each)
    if problems:
        raise UsageError(f"nothing to segment in:\n{listing(problems)}")
    if not found:
        raise UsageError("images: the list is empty, expected files, folders or globs.")
    demand_apart(found.values())
    return list(found.values())


def _of(text: str) -> list[Input]:
    path = Path(text)
    if path.is_dir():
        inside = sorted(one.relative_to(path) for one in path.rglob("*"))
        return [
            Input(path / one, one.with_suffix(""))
            for one in inside
            if one.suffix.lower() in PHOTOS
            and not any(part.startswith(".") for part in one.parts)
            and (path / one).is_file()
        ]
    if path.is_file():
        return [Input(path, Path(path.stem))]
    # What a glob finds keeps the folders below the part without wildcards.
    root, matches = matching(text)
    return [
        Input(one, one.relative_to(root).with_suffix(""))
        for one in matches
        if one.suffix.lower() in PHOTOS
    ]


def is_glob(text: str) -> bool:
    """Say whether a name has wildcards."""
    return any(one in text for one in "*?[")


def matching(pattern: str) -> tuple[Path, list[Path]]:
    """Return the folder before a glob's first wildcard, and the files that fit, sorted.

    Hidden files and folders are left out.
    """
    parts = Path(pattern).parts
    root = Path(*takewhile(lambda part: not is_glob(part), parts))
    rest = parts[len(root.parts) :]
    found = root.glob(str(Path(*rest))) if rest else iter(())
    return root, sorted(
        one
        for one in found
        if one.is_file() and not any(part.startswith(".") for part in one.relative_to(root).parts)
    )


def demand_apart(inputs: Iterable[Input]) -> None:
    """Raise `UsageError` if results of two pictures would have one name; all are named."""
    named = defaultdict(list)
    for one in inputs:
        named[one.name].append(str(one.path))
    twice = [f"{name}: {', '.join(paths)}" for name, paths in named.items() if len(paths) > 1]
    if twice:
        raise UsageError(
            f"{len(twice)} results would overwrite each other:\n{listing(twice)}\n"
            "Name the folder that holds both, so that their folders are kept, or run twice."
        )
