"""Files changed by chance, with and without right checksums."""

import shutil
from pathlib import Path

import cramjam
import google_crc32c
import numpy as np
import pytest

from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.errors import ZooError
from deeplab_zoo.proto.table import FOOTER, masked, open_table
from deeplab_zoo.proto.wire import encode_varint

from .reading import OWN, TRUTH, bounded_memory, read_all, repair, same


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Cut, flip, overwrite, insert, remove or repeat some bytes."""
    out = bytearray(content)
    at = int(random.integers(len(out)))
    count = int(random.choice([1, 2, 4, 8, 40]))
    match int(random.integers(6)):
        case 0:
            del out[at:]
        case 1:
            out[at] ^= 1 << int(random.integers(8))
        case 2:
            out[at : at + count] = random.bytes(len(out[at : at + count]))
        case 3:
            out[at:at] = random.bytes(count)
        case 4:
            del out[at : at + count]
        case 5:  # A length: a varint of many bytes, or none.
            out[at : at + 1] = random.choice([b"\0", b"\x7f", b"\xff" * 4 + b"\x0f", b"\xff\x01"])
    return bytes(out)


TARGETS = [
    ("v2", "v2.index"),
    ("v2", "v2.data-00000-of-00001"),
    ("v2s", "v2s.data-00001-of-00002"),
    ("v1", "v1"),
    ("v1s", "v1s-00001-of-00002"),
    ("snappy", "snappy"),
]


def mutate_and_read(folder: Path, seed: int, *, repaired: bool = False) -> bool:
    """Damage one file of one checkpoint, read it, restore it; tell whether it was opened."""
    random = np.random.default_rng(seed)
    prefix, name = TARGETS[0 if repaired else seed % len(TARGETS)]
    if repaired and seed % 2:
        prefix = name = "v1"
    content = (folder / name).read_bytes()
    damaged = repaired_noise(content, random) if repaired else mutated(content, random)
    try:
        replace(folder / name, damaged)
        checkpoint = open_checkpoint(folder / prefix)
    except ZooError as error:
        complaint = str(error)
    else:
        arrays, complaints = read_all(checkpoint)
        assert all(str(folder) in complaint for complaint in complaints.values()), seed
        if not repaired:
            # Every block and every tensor has a crc32c: no wrong value gets through.
            assert all(same(array, TRUTH[name]) for name, array in arrays.items()), seed
            assert set(arrays) | set(complaints) == set(TRUTH), seed
        return True
    finally:
        replace(folder / name, content)
    assert str(folder) in complaint, seed
    return False


def replace(path: Path, content: bytes) -> None:
    """Write a new file: the old one may still be mapped."""
    path.unlink()
    path.write_bytes(content)


def repaired_noise(content: bytes, random: np.random.Generator) -> bytes:
    """Overwrite bytes, so that the blocks stay where they are, and repair the checksums."""
    out = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        out[int(random.integers(len(out) - FOOTER - 100))] = int(random.integers(256))
    repair(out)
    return bytes(out)


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    for path in (OWN / "base").iterdir():
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "snappy").write_bytes(packed((OWN / "base" / "v1").read_bytes()))
    return tmp_path


def packed(content: bytes) -> bytes:
    """Compress the data block of a table of one block."""
    size = open_table(OWN / "base" / "v1").blocks[0].size
    block = bytes(cramjam.snappy.compress_raw(content[:size])) + b"\1"
    out = block + masked(google_crc32c.value(block)).to_bytes(4, "little")
    handle = encode_varint(0) + encode_varint(len(block) - 1)
    record = bytes([0, 1, len(handle)]) + b"s" + handle
    index = record + bytes(4) + b"\1\0\0\0" + b"\0"
    footer = b"\0\0" + encode_varint(len(out)) + encode_varint(len(index) - 1)
    out += index + masked(google_crc32c.value(index)).to_bytes(4, "little")
    return out + footer.ljust(FOOTER - 8, b"\0") + content[-8:]


@pytest.mark.parametrize(
    "seeds",
    [range(1000), pytest.param(range(1000, 10_000), marks=pytest.mark.slow)],
    ids=["sample", "rest"],
)
def test_mutations_give_right_values_or_a_named_error(bases: Path, seeds: range) -> None:
    with bounded_memory(bases):
        outcomes = [mutate_and_read(bases, seed) for seed in seeds]
    assert 0.05 < sum(outcomes) / len(outcomes) < 0.95  # Neither refuses nor accepts all.


@pytest.mark.parametrize(
    "seeds",
    [range(1000), pytest.param(range(1000, 5000), marks=pytest.mark.slow)],
    ids=["sample", "rest"],
)
def test_mutations_behind_right_checksums_end_in_values_or_a_named_error(
    bases: Path, seeds: range
) -> None:
    # Nothing can vouch for these values; there must be no crash, hang or large allocation.
    with bounded_memory(bases):
        outcomes = [mutate_and_read(bases, seed, repaired=True) for seed in seeds]
    assert sum(outcomes) / len(outcomes) > 0.05
