"""Checkpoints that TensorFlow wrote and what they hold, to read after damage.

A damaged checkpoint gives right values, or an error with file and place, and nothing else.
"""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from deeplab_zoo.proto.checkpoint import Checkpoint
from deeplab_zoo.proto.errors import FormatError
from deeplab_zoo.proto.table import FOOTER, TRAILER, masked

Arrays = dict[str, np.ndarray[Any, Any]]
OWN = Path(__file__).parents[2] / "golden" / "tf_corrupt"


def truth() -> Arrays:
    with np.load(OWN / "truth.npz") as arrays:
        found = {name.replace("|", "/"): arrays[name] for name in arrays.files}
    return {n: a.astype(object) if a.dtype.kind == "S" else a for n, a in found.items()}


TRUTH = truth()


def same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return False
    if found.dtype == object:
        return bool((found == expected).all())
    return found.tobytes() == expected.tobytes()


@contextmanager
def bounded_memory(folder: Path) -> Iterator[None]:
    """At most twice the files and 16 MB may be allocated."""
    size = sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= 2 * size + (16 << 20)
    finally:
        tracemalloc.stop()


def read_all(checkpoint: Checkpoint) -> tuple[Arrays, dict[str, str]]:
    """Read every variable; return the arrays, and the complaints of the others."""
    arrays: Arrays = {}
    complaints: dict[str, str] = {}
    for name, variable in checkpoint.items():
        try:
            arrays[name] = variable.read()
            assert arrays[name].shape == variable.shape
        except FormatError as error:
            complaints[name] = str(error)
    return arrays, complaints


def repair(content: bytearray) -> None:
    """Make the checksums of a table of one data block and an index block right again."""
    table_end = len(content) - FOOTER
    index = content[table_end:]
    handles, at = [], 0
    for _ in range(4):
        value = shift = 0
        while True:
            value |= (index[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if index[at - 1] < 128:
                break
        handles.append(value)
    for start, stop in ((0, handles[0] - TRAILER), (handles[2], handles[2] + handles[3])):
        crc = masked(google_crc32c.value(bytes(content[start : stop + 1])))
        content[stop + 1 : stop + TRAILER] = crc.to_bytes(4, "little")
