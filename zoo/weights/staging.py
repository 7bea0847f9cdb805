"""Unfinished downloads: each belongs to one process, and is left to the next when that ends.

``KEY.ID.partial`` is free. A process takes it by renaming it to ``KEY.ID.partial.HOST.PID``,
which the file system lets one process do; on any end but kill it renames it back. What a
killed process of this machine held is taken from its name too; what another machine held,
after an hour of silence, as a copy. ``KEY.ID.json`` beside it says what the bytes are of.
"""

import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SILENCE = 3600.0


@dataclass(frozen=True, slots=True)
class Partial:
    """A download that this process owns: ``path`` its bytes, ``free`` their name when let go."""

    path: Path
    free: Path

    @property
    def _about(self) -> Path:
        return self.free.with_suffix(".json")

    def describe(self, url: str, validator: str, total: int | None) -> None:
        """Note what the bytes are of; ``validator`` is the server's strong ETag or date."""
        text = json.dumps({"url": url, "validator": validator, "total": total})
        self._about.write_text(text, "utf-8")

    def described(self) -> tuple[str, str, int | None]:
        """Return what was noted, empty where nothing was."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._about.read_text("utf-8"))
            return found["url"], found["validator"], found["total"]
        return "", "", None

    def release(self) -> None:
        """Leave it to whoever comes next; nothing stays of an empty or a finished one."""
        if _size(self.path):
            self.path.rename(self.free)
        else:
            self.remove()

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def claim(folder: Path, key: str) -> Partial:
    """Take the largest download of ``key`` that nobody works on, or begin a new one."""
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{key}.*.partial*"), key=_size, reverse=True)
    for orphan in found:
        mine = _owned(folder, key, orphan.name.split(".")[1])
        with suppress(FileNotFoundError):  # Another process was quicker.
            if orphan == mine.free or _owner_is_dead(orphan):
                orphan.rename(mine.path)
                return mine
            if _is_foreign(orphan) and _silence(orphan) > SILENCE:
                # Its writer may come back from a sleep: it must not write into our file.
                return _copied(orphan, folder, key)
    mine = _owned(folder, key, uuid.uuid4().hex)
    mine.path.touch()
    return mine


def scratch(folder: Path, key: str) -> Path:
    """Make an empty folder of this process, to unpack into."""
    made = folder / f"{key}.{uuid.uuid4().hex}.unpacked.{_host()}.{os.getpid()}"
    made.mkdir(parents=True)
    return made


def leftovers(folder: Path) -> list[Path]:
    """Return the files and folders in staging that nobody works on."""
    free = [
        path
        for path in (*folder.glob("*.partial*"), *folder.glob("*.unpacked.*"))
        if path.name.endswith(".partial") or _owner_is_dead(path) or _silence(path) > SILENCE
    ]
    held = {path.name.split(".")[1] for path in set(folder.glob("*.partial*")) - set(free)}
    return free + [one for one in folder.glob("*.json") if one.name.split(".")[1] not in held]


def _owned(folder: Path, key: str, identity: str) -> Partial:
    """Return a download under the names that it has while this process works on it."""
    free = folder / f"{key}.{identity}.partial"
    return Partial(free.with_name(f"{free.name}.{_host()}.{os.getpid()}"), free)


def _copied(orphan: Path, folder: Path, key: str) -> Partial:
    mine = _owned(folder, key, uuid.uuid4().hex)
    shutil.copyfile(orphan, mine.path)
    about = orphan.with_name(".".join(orphan.name.split(".")[:2]) + ".json")
    with suppress(FileNotFoundError):
        about.rename(mine.free.with_suffix(".json"))
    orphan.unlink(missing_ok=True)
    return mine


def _host() -> str:
    """Name this machine and its numbering of processes, which containers have of their own."""
    numbering = ""
    with suppress(OSError):
        numbering = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:8]


def _is_foreign(path: Path) -> bool:
    return path.name.split(".")[3] != _host()


def _owner_is_dead(path: Path) -> bool:
    if path.name.endswith(".partial") or _is_foreign(path) or os.name == "nt":
        return False
    try:
        os.kill(int(path.name.split(".")[4]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _silence(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
