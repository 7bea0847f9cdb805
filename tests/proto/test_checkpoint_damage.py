"""Damaged checkpoints: right values or an error with file and place, nothing else."""

import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cramjam
import google_crc32c
import numpy as np
import pytest

from deeplab_zoo.proto.checkpoint import Checkpoint, open_checkpoint
from deeplab_zoo.proto.checkpoint_write import write_v2
from deeplab_zoo.proto.errors import FormatError, ZooError
from deeplab_zoo.proto.table import FOOTER, TRAILER, entries, masked, open_table
from deeplab_zoo.proto.table_write import write_table
from deeplab_zoo.proto.tensorflow_pb2 import BundleEntry, BundleHeader, SavedTensorSlices
from deeplab_zoo.proto.wire import encode_varint

OWN = Path(__file__).parents[1] / "golden" / "tf_corrupt"
SHARED = Path(__file__).parents[2].parent / "shared" / "golden" / "tf"
CASES = {case["case"]: case for case in json.loads((OWN / "cases.json").read_text())}
RECIPES = SHARED / "corrupt" / "recipes.json"

Arrays = dict[str, np.ndarray[Any, Any]]


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


# -- What TensorFlow makes of the same files -----------------------------------------------


def tensorflow_refuses_all(case: dict[str, Any]) -> bool:
    return case["reader"]["load_checkpoint"] != "ok"


def is_silently_wrong(failure: Any) -> bool:
    return isinstance(failure, dict) and "silently_wrong" in failure


def only_tensorflow_cannot(failure: Any) -> bool:
    """Slices in a V1 file are sound; its Python reader lacks them, its Saver does not."""
    return isinstance(failure, dict) and failure.get("class") == "UnimplementedError"


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if tensorflow_refuses_all(c)])
def test_what_tensorflow_does_not_open_is_refused_by_name(name: str) -> None:
    path = OWN / "cases" / name / CASES[name]["prefix"]
    with bounded_memory(path.parent), pytest.raises(ZooError) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(str(path).partition("-?")[0])
    if path.parent.exists():
        assert isinstance(error.value, FormatError)


# TensorFlow opens these and reads nothing rightly; we do not open them.
REFUSED_WHOLE = {
    "v2_header_big_endian_flag": "says the data are big-endian",
    "v2_header_shards_0": "0 shards",
}


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not tensorflow_refuses_all(c)])
def test_what_tensorflow_opens_is_read_as_far_as_it_is_sound(name: str) -> None:
    reader, path = CASES[name]["reader"], OWN / "cases" / name / CASES[name]["prefix"]
    failures = reader["get_tensor_failures"]
    with bounded_memory(path.parent):
        if name in REFUSED_WHOLE:
            assert reader["get_tensor_ok"] == []
            with pytest.raises(FormatError, match=REFUSED_WHOLE[name]):
                open_checkpoint(path)
            return
        checkpoint = open_checkpoint(path)
        arrays, complaints = read_all(checkpoint)
    for variable in reader["get_tensor_ok"]:
        assert same(arrays[variable], TRUTH[variable]), complaints.get(variable)
    for variable, failure in failures.items():
        if only_tensorflow_cannot(failure):
            assert same(arrays[variable], TRUTH[variable])
        elif is_silently_wrong(failure):
            assert variable in complaints or any(repr(variable) in n for n in checkpoint.notes)
        elif variable in checkpoint:
            assert str(path) in complaints[variable]
            assert repr(variable) in complaints[variable]
        else:
            assert any("missing" in note for note in checkpoint.notes)
    assert not set(complaints) - set(failures)


def test_sound_checkpoints_are_read_without_a_note() -> None:
    for name in ("v2_intact", "v2s_intact", "v1_intact", "v1_rewritten", "v1s_intact"):
        checkpoint = open_checkpoint(OWN / "cases" / name / CASES[name]["prefix"])
        arrays, complaints = read_all(checkpoint)
        assert (checkpoint.notes, complaints) == ((), {})
        assert set(arrays) == set(TRUTH)
        assert all(same(arrays[variable], TRUTH[variable]) for variable in TRUTH)


def edited(recipe: dict[str, Any], folder: Path) -> None:
    """Copy the recipe's checkpoint and damage it as it says."""
    for path in (SHARED / "small" / recipe["base"]).iterdir():
        if path.suffix != ".meta":
            (folder / path.name).write_bytes(path.read_bytes())
    for step in recipe["ops"]:
        path = folder / step["file"]
        content = bytearray(path.read_bytes())
        match step["op"]:
            case "delete":
                path.unlink()
                continue
            case "truncate":
                del content[step["size"] :]
            case "xor":
                content[step["offset"]] ^= step["mask"]
            case "write":
                new = bytes.fromhex(step["hex"])
                content[step["offset"] : step["offset"] + len(new)] = new
            case "append":
                content += bytes.fromhex(step["hex"])
        path.write_bytes(content)


@pytest.mark.golden
@pytest.mark.skipif(not RECIPES.is_file(), reason=f"no reference data at {RECIPES}")
def test_recipes_of_damage_end_as_in_tensorflow(tmp_path: Path) -> None:
    whole = {
        base: read_all(open_checkpoint(SHARED / "small" / base / "model.ckpt"))[0]
        for base in ("v2", "v1", "v2_sharded")
    }
    for recipe in json.loads(RECIPES.read_text()):
        folder = tmp_path / recipe["recipe"]
        folder.mkdir()
        edited(recipe, folder)
        with bounded_memory(folder):
            if recipe["reader"]["load_checkpoint"] != "ok":
                with pytest.raises(FormatError, match=r"model\.ckpt"):
                    open_checkpoint(folder / "model.ckpt")
                continue
            arrays, complaints = read_all(open_checkpoint(folder / "model.ckpt"))
        expected = whole[recipe["base"]]
        listed = recipe["reader"]["get_tensor_failures"]
        count = recipe["reader"].get("get_tensor_failures_n", len(listed))
        assert len(complaints) == count, recipe["recipe"]
        assert set(listed) - {"..."} <= set(complaints), recipe["recipe"]
        assert len(arrays) == recipe["reader"]["get_tensor_ok"]
        assert all(same(array, expected[name]) for name, array in arrays.items())
        shutil.rmtree(folder)


# -- What TensorFlow reads wrongly in silence ----------------------------------------------


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


# -- Seeded mutations ----------------------------------------------------------------------


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
