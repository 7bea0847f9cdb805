"""Which file names are safe to write on any system."""

import re
from pathlib import PurePosixPath, PureWindowsPath

# Windows keeps these for devices, whatever the suffix.
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
LONGEST = 200  # Bytes: systems allow 255, and a temporary name is longer.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}


def unsafe(name: str, *, folders: bool = False) -> str | None:
    """Say why a name may not be written to; None for a safe one.

    ``folders`` allows a path with folders, as archives have.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive or "\\" in name or "\0" in name:
        return "not a relative path"
    if not path.parts or ".." in path.parts or (len(path.parts) > 1 and not folders):
        return "leaves its folder"
    if not folders and (_FORBIDDEN.search(name) or len(name.encode("utf-8", "replace")) > LONGEST):
        return f"has a character that Windows forbids, or more than {LONGEST} bytes"
    if any(part.split(".")[0].lower() in _RESERVED or part[-1] in ". " for part in path.parts):
        return "Windows reserves it"
    return None


def stem(filename: str) -> str:
    """Return the name of the folder that an archive is unpacked to."""
    return re.sub(r"\.(zip|tgz|tar(\.\w+)?)$", "", filename)
