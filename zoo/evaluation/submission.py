"""Predictions become what PASCAL VOC's server takes: one archive of index PNGs.

The server wants ``results/VOC2012/Segmentation/comp6_test_cls/<id>.png``; comp5 is for
training on VOC's own data alone, comp6 for any.
"""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...converters.files import replacing
from ...proto.errors import StorageError, UsageError
from .paint import indexed
from .processes import place

COMPETITIONS = ("comp5", "comp6")
SUFFIXES = (".tgz", ".tar.gz")


@contextmanager
def submission(
    path: Path,
    split: str,
    table: NDArray[np.uint8],
    competition: str = "comp6",
    *,
    overwrite: bool = False,
) -> Iterator[Callable[[str, NDArray[np.uint8]], None]]:
    """Give a function that adds an image's class ids by its id; the archive is whole or absent.

    Equal predictions in equal order give equal bytes. ``table`` is the palette; ``overwrite``
    replaces an archive that is there.

    Raises
    ------
    UsageError
        Another suffix than ``.tgz`` or ``.tar.gz``, an unknown competition, or several processes.
    StorageError
        It is there already, or cannot be written.

    """
    if not path.name.endswith(SUFFIXES):
        raise UsageError(f"{path}: expected a name that ends in .tgz or .tar.gz.")
    if competition not in COMPETITIONS:
        raise UsageError(f"competition {competition!r}: expected one of {', '.join(COMPETITIONS)}.")
    if place()[1] > 1:
        raise UsageError("a submission is written by one process; run it without torchrun.")
    if path.exists() and not overwrite:
        raise StorageError(f"{path}: is there already. Choose another name, or --overwrite.")
    folder = f"results/VOC2012/Segmentation/{competition}_{split}_cls"
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        # No name and no time, which gzip would write.
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):

        def add(name: str, ids: NDArray[np.uint8]) -> None:
            content = indexed(ids, table)
            entry = tarfile.TarInfo(f"{folder}/{name}.png")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))

        yield add
