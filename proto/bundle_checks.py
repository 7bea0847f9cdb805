"""What is odd about a V2 checkpoint that no crc covers: notes, and the byte order.

The crc32c of a tensor covers the bytes as stored, so a wrong byte-order flag passes it and
TensorFlow reads wrong values in silence. Here the values decide.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, Entry, named
from .checkpoint_records import dtype_of
from .checkpoint_slices import slice_key
from .errors import FormatError

TENSORS, NUMBERS = 16, 256  # How many are looked at: enough to tell, little to read.
SANE = (1e-10, 1e10)  # Magnitudes of weights and statistics; of random bits, a quarter.
SANE_INTEGER = 2**40  # A global step, a count of images.


def oddities(bundle: Bundle) -> Iterator[str]:
    """Name what is unusual about the entries and the shards."""
    if bundle.swapped:
        yield "big-endian: written on another kind of machine, every number is byte-swapped"
    for number in sorted({entry.shard for entry in bundle.entries.values()}):
        if number not in bundle.shards:
            yield f"{bundle.shard(number).name}: missing, its variables cannot be read"
    yield from _orphans(bundle)
    for number, shard in bundle.shards.items():
        yield from _layout(bundle, number, len(shard))


def _orphans(bundle: Bundle) -> Iterator[str]:
    listed = {
        slice_key(key, extents) for key, entry in bundle.entries.items() for extents in entry.slices
    }
    for key in bundle.entries:
        if key.startswith(b"\0") and key not in listed:
            yield f"{named(key)}: stored, but its variable does not list it"


def _layout(bundle: Bundle, number: int, size: int) -> Iterator[str]:
    """Name entries that share bytes, and bytes that no entry has."""
    name, end, unused, last = bundle.shard(number).name, 0, 0, b""
    inside = {
        key: entry
        for key, entry in bundle.entries.items()
        if entry.shard == number and 0 < entry.size <= size - entry.offset <= size
    }
    for key, entry in sorted(inside.items(), key=lambda item: (item[1].offset, item[0])):
        if entry.offset < end:
            yield f"{named(key)} shares bytes of {name} with {named(last)}"
        unused += max(entry.offset - end, 0)
        if entry.offset + entry.size > end:
            end, last = entry.offset + entry.size, key
    if unused := unused + size - end:
        yield f"{name}: {unused} bytes that no variable has"


def check_byte_order(bundle: Bundle) -> None:
    """Raise where the numbers make sense in the other byte order only."""
    stored = list(_samples(bundle))
    as_flagged, otherwise = _sane(stored, bundle.swapped), _sane(stored, not bundle.swapped)
    if as_flagged < 0.5 and otherwise > 0.8:
        flag, other = ("big", "little") if bundle.swapped else ("little", "big")
        raise FormatError(
            f"{bundle.index}: header: says the data are {flag}-endian, but as such "
            f"{1 - as_flagged:.0%} of the numbers looked at are absurd; as {other}-endian "
            f"{otherwise:.0%} are sound. The flag is damaged."
        )


def _samples(bundle: Bundle) -> Iterator[NDArray[Any]]:
    """Yield some of the stored numbers, as if little-endian, of a few tensors."""
    numeric = [entry for entry in bundle.entries.values() if _is_telling(bundle, entry)]
    numeric.sort(key=attrgetter("size"), reverse=True)
    for entry in numeric[:: max(1, len(numeric) // TENSORS)][:TENSORS]:
        code = np.dtype(dtype_of(entry.dtype).code)
        count = min(entry.size // code.itemsize, NUMBERS)
        yield np.frombuffer(bundle.shards[entry.shard], code, count, entry.offset)


def _is_telling(bundle: Bundle, entry: Entry) -> bool:
    shard = bundle.shards.get(entry.shard, b"")
    return (
        dtype_of(entry.dtype).name in ("float32", "float64", "int64")
        and 0 <= entry.offset <= len(shard) - entry.size
        and entry.size >= 8
    )


def _sane(samples: list[NDArray[Any]], swapped: bool) -> float:
    """Return the share of the numbers, zeros aside, that a checkpoint may well hold."""
    sound = total = 0
    for stored in samples:
        numbers = stored.byteswap() if swapped else stored
        numbers = numbers[numbers != 0]
        with np.errstate(invalid="ignore"):
            size = np.abs(numbers.astype(np.float64))
        low, high = SANE if numbers.dtype.kind == "f" else (1, SANE_INTEGER)
        sound += int(((size >= low) & (size <= high)).sum())
        total += numbers.size
    return sound / total if total else 1.0
