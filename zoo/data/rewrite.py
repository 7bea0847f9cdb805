"""A folder of masks becomes another: each file changed, written whole, and the bad ones named."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ...converters.files import folder_for, replacing
from ...proto.errors import FormatError, UsageError, listing
from .lists import MASKS, by_stem

Progress = Callable[[int, int], None]


def rewrite(
    source: Path,
    target: Path,
    change: Callable[[Path], bytes],
    *,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Iterator[Path]:
    """Write the PNG that ``change`` makes of a mask, or of each in a folder; yield what is written.

    With ``workers``, processes call ``change``, which must be one that can be sent to them.

    Raises
    ------
    FormatError
        Some masks cannot be read. All of them are named, after the others were written.
    UsageError
        The target is the source or lies in it, or a file would be replaced without ``overwrite``.

    """
    pairs = _pairs(source, target)
    if not overwrite:
        demand_free(target, [out for _, out in pairs])
    if source.is_dir():
        folder_for(target)
    bad = []
    changed = _changed([path for path, _ in pairs], partial(_attempt, change), workers)
    for done, ((_, out), found) in enumerate(zip(pairs, changed, strict=True), 1):
        if isinstance(found, FormatError):
            bad.append(str(found))
        else:
            with replacing(out) as temporary:
                temporary.write_bytes(found)
            yield out
        progress(done, len(pairs))
    if bad:
        raise FormatError(f"{len(bad)} of {len(pairs)} masks not converted:\n{listing(bad)}")


def demand_free(target: Path, files: Iterable[Path]) -> None:
    """Raise `UsageError` if some of the files to write are there already."""
    if present := [str(file) for file in files if file.is_file()]:
        raise UsageError(
            f"{target}: has {len(present)} of the files to write:\n{listing(present)}\n"
            "Replace them (--overwrite), or name another place."
        )


def _pairs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Return each mask and the file that it becomes."""
    here, there = source.resolve(), target.resolve()
    if here == there or here in there.parents:
        which = "is" if here == there else "lies in"
        raise UsageError(f"{target}: {which} what is read, expected another place to write to.")
    if source.is_file():
        return [(source, target)]
    masks = by_stem(source, MASKS)
    if not masks:
        raise FormatError(f"{source}: holds no masks ({', '.join(MASKS)}).")
    return [(path, target / f"{stem}.png") for stem, path in masks.items()]


def _attempt(change: Callable[[Path], bytes], path: Path) -> bytes | FormatError:
    try:
        return change(path)
    except FormatError as error:
        return error


def _changed(
    paths: Sequence[Path], attempt: Callable[[Path], bytes | FormatError], workers: int
) -> Iterator[bytes | FormatError]:
    """Yield what becomes of each file, in order."""
    if not workers:
        yield from map(attempt, paths)
        return
    # Spawned: a fork would copy the locks of threads that numpy has started.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(attempt, paths, chunksize=4)
