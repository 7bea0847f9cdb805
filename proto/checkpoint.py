"""Open a TensorFlow checkpoint, whatever its format, by whatever name the user has for it.

Enters: a path. Leaves: a `Checkpoint`, a mapping from variable names to lazy variables.
TensorFlow is not needed.
"""

import os
import re
from pathlib import Path

from .checkpoint_records import Checkpoint, Variable, object_path
from .checkpoint_v1 import read_tables
from .checkpoint_v2 import read_bundle
from .errors import FormatError, ZooError, listing
from .source import head, sniff, wrong_kind
from .table import Table, entries, open_table
from .tensorflow_pb2 import CheckpointState
from .textformat import parse

__all__ = ["Checkpoint", "Variable", "object_path", "open_checkpoint"]

STATE = "checkpoint"  # The text file that names a folder's newest checkpoint.
_SHARD = re.compile(r"(?P<prefix>.+?)(?P<v2>\.data)?-(?:\d{5}|\?{5})-of-(?P<count>\d{5})")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """List the variables of a checkpoint; nothing is read but the index.

    These name the same checkpoint: ``model.ckpt-20000``, that with ``.index``, ``.meta`` or
    ``.data-00000-of-00001``, and a folder whose file ``checkpoint`` names it. A V1
    checkpoint is one file, or shards: ``model.ckpt-?????-of-00003``, any one of them, or
    ``model.ckpt``. Which format it is, is told by the content.

    Raises
    ------
    ZooError
        Nothing is there, or a folder does not say which checkpoint.
    FormatError
        The files are damaged or something else; file and byte are named. Damage to the
        data of one variable is raised when that variable is read.

    """
    place = Path(path)
    if place.is_dir() and not _index(place).is_file():
        place = _newest(place)
    elif place.name == STATE and place.is_file() and sniff(head(place)) == "text":
        place = _newest(place.parent)
    return _open(place)


def _open(path: Path) -> Checkpoint:
    shard = _SHARD.fullmatch(path.name)
    if shard and shard["v2"]:
        return _table_at(_index(path.with_name(shard["prefix"])))
    if shard and not _index(path).is_file():
        return _open_shards(path.with_name(shard["prefix"]), int(shard["count"]))
    if path.suffix == ".meta":
        return _open(path.with_suffix(""))
    if path.is_file():
        return _table_at(path)
    if _index(path).is_file():
        return _table_at(_index(path))
    counts = list(_v1_shards(path))
    if len(counts) == 1:
        return _open_shards(path, counts[0])
    raise ZooError(_nothing(path, len(counts)))


def _table_at(path: Path) -> Checkpoint:
    if not path.exists():
        raise ZooError(_nothing(path))
    table = open_table(path)
    return read_bundle(table) if _is_bundle(table) else read_tables([table], path, ())


def _is_bundle(table: Table) -> bool:
    """Tell V2 from V1 by the empty key's value, which begins with another field's tag."""
    key, value = next(entries(table), (b"", memoryview(b"")))
    start = bytes(value[:1]) if key == b"" else b""
    if start in (b"\x08", b"\x0a"):  # BundleHeader.num_shards, SavedTensorSlices.meta
        return start == b"\x08"
    return table.path.suffix == ".index"


def _open_shards(prefix: Path, count: int) -> Checkpoint:
    """Open those shards of a V1 checkpoint that exist; the missing ones are noted."""
    pattern = prefix.with_name(f"{prefix.name}-?????-of-{count:05d}")
    found = _v1_shards(prefix).get(count, [])
    if not found:
        raise ZooError(_nothing(pattern))
    notes = []
    if len(found) < count:
        lost = f"{count - len(found)} of {count} shards are missing, and the variables in them"
        notes.append(f"{lost}: found {', '.join(found)}")
    tables = [open_table(prefix.with_name(name)) for name in found]
    return read_tables(tables, pattern, notes)


def _v1_shards(prefix: Path) -> dict[int, list[str]]:
    """Return the names of the V1 shards of a checkpoint, by how many there should be."""
    shards: dict[int, list[str]] = {}
    for name in sorted(_siblings(prefix)):
        found = _SHARD.fullmatch(name)
        if found and found["prefix"] == prefix.name and not found["v2"]:
            shards.setdefault(int(found["count"]), []).append(name)
    return shards


def _newest(folder: Path) -> Path:
    """Return the prefix that a folder's ``checkpoint`` file names."""
    state = folder / STATE
    if not state.is_file():
        found = [Path(name) for name in _siblings(state) if name.endswith(".index")]
        names = [name.stem for name in found]
        if len(names) == 1:
            return folder / names[0]
        choice = f"Name one:\n{listing(sorted(names))}" if names else "There is no .index in it."
        raise FormatError(
            f"{folder}: is a folder without a file {STATE!r} that says which checkpoint is the "
            f"newest. {choice}"
        )
    message = CheckpointState()
    if (kind := sniff(head(state))) != "text":
        raise FormatError(wrong_kind(state, kind, "a text that names the newest checkpoint"))
    try:
        content = state.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FormatError(f"{state}: is not text, expected model_checkpoint_path.") from None
    parse(content, message, str(state))
    if not message.model_checkpoint_path:
        raise FormatError(f"{state}: names no checkpoint, expected model_checkpoint_path.")
    named = folder / message.model_checkpoint_path  # An absolute path stays itself.
    if not _matching(named):
        # The folder was moved or downloaded; the path is of the machine that trained.
        return folder / re.split(r"[/\\]", message.model_checkpoint_path)[-1]
    return named


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.index") if path.name else path


def _siblings(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def _matching(path: Path) -> list[str]:
    return [name for name in _siblings(path) if name.startswith(path.name)]


def _nothing(path: Path, counts: int = 0) -> str:
    if counts > 1:
        return f"{path}: shards of {counts} different checkpoints, name one of the files."
    near = _matching(path.with_suffix("") if path.suffix == ".index" else path)
    seen = f" Similar names there:\n{listing(sorted(near))}" if near else ""
    return f"{path}: no TensorFlow checkpoint of this name (looked from {Path.cwd()}).{seen}"
