"""Damage that TensorFlow reads in silence, and wrongly."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.proto.checkpoint import Checkpoint, open_checkpoint
from deeplab_zoo.proto.checkpoint_write import write_v2
from deeplab_zoo.proto.errors import FormatError
from deeplab_zoo.proto.table import entries, open_table
from deeplab_zoo.proto.table_write import write_table
from deeplab_zoo.proto.tensorflow_pb2 import BundleEntry, BundleHeader, SavedTensorSlices

from .reading import OWN, TRUTH, read_all, repair, same


def base(folder: Path, prefix: str = "v2") -> Path:
    for path in (OWN / "base").iterdir():
        if path.name.startswith((f"{prefix}.", f"{prefix}-")) or path.name == prefix:
            shutil.copy(path, folder / path.name)
    return folder / prefix


def rewrite(index: Path, edit: Callable[[dict[bytes, bytes]], None]) -> None:
    """Change the entries of an index and write it with right checksums."""
    found = {key: bytes(value) for key, value in entries(open_table(index))}
    edit(found)
    index.unlink()
    with index.open("wb") as file:
        write_table(sorted(found.items()), file)


def test_a_missing_header_is_refused(tmp_path: Path) -> None:
    prefix = base(tmp_path)
    rewrite(tmp_path / "v2.index", lambda found: found.__delitem__(b""))
    with pytest.raises(FormatError, match=r"v2\.index: header: missing"):
        open_checkpoint(prefix)


@pytest.mark.parametrize("prefix", ["v2s", "v1s"])
def test_swapped_shards_are_refused_or_do_not_matter(tmp_path: Path, prefix: str) -> None:
    base(tmp_path, prefix)
    first, second = sorted(path for path in tmp_path.iterdir() if "-of-" in path.name)
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    arrays, complaints = read_all(open_checkpoint(tmp_path / prefix))
    if prefix == "v1s":  # A V1 shard says itself what it holds.
        assert complaints == {}
    else:
        assert arrays == {}
        assert "data-0000" in complaints["conv1/weights"]
    assert all(same(array, TRUTH[name]) for name, array in arrays.items())


@pytest.mark.parametrize("flag", [0, 1])
def test_a_flipped_byte_order_is_refused(tmp_path: Path, flag: int) -> None:
    weights = np.random.default_rng(3).normal(0, 0.1, (3, 3, 5, 7)).astype("<f4")
    if flag == 0:
        weights = weights.byteswap()  # Big-endian data under a header that says little.
    prefix = tmp_path / "model.ckpt"
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")
    with index.open("wb") as i, data.open("wb") as d:
        write_v2({"weights": weights}, i, d)

    def set_flag(found: dict[bytes, bytes]) -> None:
        header = BundleHeader.FromString(found[b""])
        header.endianness = flag
        found[b""] = header.SerializeToString()

    rewrite(index, set_flag)
    with pytest.raises(FormatError, match="The flag is damaged"):
        open_checkpoint(prefix)


def test_odd_values_in_the_right_byte_order_are_read(tmp_path: Path) -> None:
    odd = np.array([np.nan, np.inf, 1e-40, -0.0, 3e38, 0], "<f4")
    index, data = tmp_path / "m.index", tmp_path / "m.data-00000-of-00001"
    with index.open("wb") as i, data.open("wb") as d:
        write_v2({"odd": odd, "zeros": np.zeros((5, 3), "<f4")}, i, d)
    assert same(open_checkpoint(tmp_path / "m")["odd"].read(), odd)


def test_entries_that_share_bytes_and_bytes_without_entry_are_noted(tmp_path: Path) -> None:
    prefix = base(tmp_path)

    def move(found: dict[bytes, bytes]) -> None:
        entry = BundleEntry.FromString(found[b"bn_conv1/beta"])
        entry.offset += 8
        found[b"bn_conv1/beta"] = entry.SerializeToString()

    rewrite(tmp_path / "v2.index", move)
    notes = open_checkpoint(prefix).notes
    assert any("'bn_conv1/beta'" in note and "shares bytes" in note for note in notes)
    assert any("8 bytes that no variable has" in note for note in notes)


def test_an_entry_out_of_order_is_refused_alone(tmp_path: Path) -> None:
    prefix = base(tmp_path)
    content = bytearray((tmp_path / "v2.index").read_bytes())
    at = content.index(b"classes")  # A letter that keeps the length, and the order breaks.
    content[at : at + 7] = b"zlasses"
    repair(content)
    (tmp_path / "v2.index").write_bytes(content)
    arrays, complaints = read_all(open_checkpoint(prefix))
    assert "zlasses" in arrays
    assert complaints.keys() >= {"fc1_voc12_c0/biases", "global_step", "part"}
    assert all("out of order" in complaint for complaint in complaints.values())


def test_exchanged_data_of_a_v1_file_are_refused(tmp_path: Path) -> None:
    # TensorFlow goes by the key, and reads the other variable's numbers in silence.
    base(tmp_path, "v1")

    def exchange(found: dict[bytes, bytes]) -> None:
        beta, gamma = (
            next(key for key in found if key.startswith(b"\0bn_conv1/" + name + b"\0"))
            for name in (b"beta", b"gamma")
        )
        found[beta], found[gamma] = found[gamma], found[beta]

    rewrite(tmp_path / "v1", exchange)
    arrays, complaints = read_all(open_checkpoint(tmp_path / "v1"))
    assert complaints.keys() == {"bn_conv1/beta", "bn_conv1/gamma"}
    assert "say they are of 'bn_conv1/gamma'" in complaints["bn_conv1/beta"]
    assert len(arrays) == 8


def with_values(folder: Path, values: bytes) -> Checkpoint:
    """A V1 checkpoint whose bn_conv1/beta, 8 floats, is this TensorProto."""
    base(folder, "v1")

    def edit(found: dict[bytes, bytes]) -> None:
        key = next(key for key in found if key.startswith(b"\0bn_conv1/beta\0"))
        message = SavedTensorSlices.FromString(found[key])
        message.data.data = values
        found[key] = message.SerializeToString()

    rewrite(folder / "v1", edit)
    return open_checkpoint(folder / "v1")


def test_unpacked_values_of_a_v1_file_are_read(tmp_path: Path) -> None:
    expected = TRUTH["bn_conv1/beta"]
    values = b"".join(b"\x2d" + number.tobytes() for number in expected)
    assert same(with_values(tmp_path, values)["bn_conv1/beta"].read(), expected)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (b"\x22\x20" + bytes(32), "0 numbers of float32"),  # tensor_content
        (b"\x2a\x21" + bytes(33), "33 bytes of float32"),
        (b"\x28\x07", "wire type 0"),
        (b"\x2a\x20" + bytes(31), "32 bytes"),
    ],
)
def test_values_that_are_not_all_there_are_refused(
    tmp_path: Path, values: bytes, complaint: str
) -> None:
    checkpoint = with_values(tmp_path, values)
    with pytest.raises(FormatError, match=complaint) as error:
        checkpoint["bn_conv1/beta"].read()
    path = tmp_path / "v1"
    assert str(error.value).startswith(f"{path}: variable 'bn_conv1/beta': {path}: block at byte 0")
