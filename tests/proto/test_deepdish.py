"""jaccardSegment's weights, as deepdish writes them, and files that only look like it."""

import gzip
import pickle
import random
import re
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deeplab_zoo.proto import deepdish
from deeplab_zoo.proto.errors import FormatError

GOLDEN = Path(__file__).parents[1] / "golden" / "deepdish"


def golden(name: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{name}.h5"
    path.write_bytes(gzip.decompress((GOLDEN / f"{name}.h5.gz").read_bytes()))
    return path


def written(tmp_path: Path, value: Any, protocol: int = 2, **layout: Any) -> Path:
    """A file of deepdish's layout: PyTables' VLArray with one pickled row."""
    path = tmp_path / "weights.h5"
    layout = {"shape": (1,), "maxshape": (None,), "chunks": (4,)} | layout
    with h5py.File(path, "w") as file:
        file.attrs["DEEPDISH_IO_VERSION"] = 12
        data = file.create_dataset("data", dtype=h5py.vlen_dtype(np.uint8), **layout)
        content = value if isinstance(value, bytes) else pickle.dumps(value, protocol)
        if data.size:
            data[0] = np.frombuffer(content, np.uint8)
    return path


def nodes(tmp_path: Path) -> h5py.File:
    """A file of deepdish's other layout, to be filled: a node per key."""
    file = h5py.File(tmp_path / "weights.h5", "w")
    file.attrs["DEEPDISH_IO_VERSION"] = 12
    file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_(b"2.1")
    return file


def refused(path: Path, words: str) -> None:
    with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: .*{re.escape(words)}"):
        deepdish.read(path)


@pytest.mark.parametrize("name", ["python2", "python3"])
def test_the_pickle_of_a_real_file_is_read(name: str, tmp_path: Path) -> None:
    variables = deepdish.read(golden(name, tmp_path))
    assert len(variables) == 3 * 86 + 2
    for unit in range(86):
        kernel = (np.arange(12, dtype="f4").reshape(1, 2, 3, 2) + unit) / 4
        weights = variables[f"unit{unit}/weights"]
        np.testing.assert_array_equal(weights, kernel.transpose(3, 2, 0, 1), strict=True)
        momentum = variables[f"unit{unit}/weights/Momentum"]
        np.testing.assert_array_equal(momentum, np.zeros((2, 3, 1, 2), "f4"), strict=True)
        variance = variables[f"unit{unit}/moving_variance"]
        np.testing.assert_array_equal(variance, np.array([unit, unit + 1], "f4"), strict=True)
    assert variables["fc/weights"].tolist() == [[0, 3], [1, 4], [2, 5]]
    np.testing.assert_array_equal(variables["global_step"], np.array(20000, "i8"), strict=True)


def test_the_nodes_of_a_real_file_are_read(tmp_path: Path) -> None:
    variables = deepdish.read(golden("python2-nodes", tmp_path))
    assert sorted(variables) == ["conv/biases", "conv/weights", "step"]
    weights = np.arange(6000, dtype="f4").reshape(2, 3000)
    np.testing.assert_array_equal(variables["conv/weights"], weights, strict=True)
    assert variables["conv/biases"].tolist() == [0, 1]
    assert (variables["step"].shape, variables["step"].tolist()) == ((), 3)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_written_by_h5py_is_read(protocol: int, tmp_path: Path) -> None:
    variables = {"a/weights": np.arange(6, dtype=">f4").reshape(2, 3), "step": 7, "rate": 0.5}
    found = deepdish.read(written(tmp_path, variables, protocol))
    assert list(found) == list(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_pickle_is_read_without_a_copy(tmp_path: Path) -> None:
    path = written(tmp_path, {"a": np.zeros(2_000_000, "f4")}, 4)
    tracemalloc.start()
    array = deepdish.read(path)["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 4


def test_scalars_and_groups_become_names(tmp_path: Path) -> None:
    with nodes(tmp_path) as file:
        file["data/weights"] = np.ones((2, 3), "f4")
        file["data"].attrs["TITLE"] = np.bytes_(b"dict:2")
        file["data"].attrs["count"] = np.int64(3)
    found = deepdish.read(tmp_path / "weights.h5")
    assert {name: array.tolist() for name, array in found.items()} == {
        "data/weights": [[1, 1, 1], [1, 1, 1]],
        "data/count": 3,
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\x80\2cos\nsystem\nU\4true\x85R.", "/data: byte 2: names 'os.system'"),
        (b"\x80\2}", "/data: byte 3: expected 1 bytes"),
        ([np.zeros(1)], "/data: pickled list"),
        ({"a": "text", "b": np.zeros(1)}, "/data: expected arrays of numbers only.\n  a: str"),
        ({"a": 2**70}, "a: int"),
        ({"a": np.array(["text"])}, "the type 'U4'"),
        ({"a": np.array([{}])}, "Python objects"),
        ({}, "holds no variable"),
    ],
)
def test_a_pickle_of_something_else_is_refused(value: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=re.escape(words)):
        deepdish.read(written(tmp_path, value))


@pytest.mark.parametrize(
    "layout",
    [{"shape": (2,)}, {"compression": "gzip"}, {"shape": (0,)}, {"chunks": None, "maxshape": None}],
)
def test_a_row_stored_in_another_way_is_refused(layout: dict[str, Any], tmp_path: Path) -> None:
    refused(written(tmp_path, {"a": np.zeros(1)}, **layout), "expected one row, not compressed")


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"\xff\xff\xff\xff"), (0, b"\1\0\0\0"), (4, b"\xff" * 8), (4, b"\0" * 8), (12, b"\2\0")],
)
def test_a_row_that_points_elsewhere_is_refused(at: int, value: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, {"a": np.zeros(9)})
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        row = file["data"].id.get_chunk_info(0).byte_offset
    content[row + at : row + at + len(value)] = value
    path.write_bytes(content)
    refused(path, "in the heap at byte" if at != 4 else "no heap at byte")


def test_a_heap_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"a": np.zeros(9)})
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    for size in (2**64 - 1, 0, 2**40):
        path.write_bytes(content[: heap + 24] + struct.pack("<Q", size) + content[heap + 32 :])
        refused(path, "in the heap at byte")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["data/conv1/0"] = np.ones(3, "f4")
    refused(path, "has no attribute DEEPDISH_IO_VERSION, expected deepdish weights")
    path.write_bytes(b"\x80\2}.")
    refused(path, "is a pickle, expected deepdish weights")


def test_nodes_that_are_not_arrays_of_floats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with nodes(tmp_path) as file:
        file["a"] = np.ones(3, "i4")
    refused(path, "/a: numbers of type int32")
    with nodes(tmp_path) as file:
        file.attrs["name"] = "text"
    refused(path, "attribute name of type")
    with nodes(tmp_path) as file:
        file["a"] = np.dtype("f4")
    refused(path, "/a: is a Datatype")
    with nodes(tmp_path) as file:
        file["a"] = h5py.ExternalLink("other.h5", "/a")
    refused(path, "/a: missing, or a link")


def test_groups_within_themselves_and_deep_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with nodes(tmp_path) as file:
        file["a/b"] = np.ones(3, "f4")
        file["a/c"] = file["a"]
    refused(path, "is stored twice")
    with nodes(tmp_path) as file:
        file["/".join("a" * 3000)] = np.ones(3, "f4")
    refused(path, "expected at most 8 levels")


def test_mutations_end_in_variables_or_format_errors(tmp_path: Path) -> None:
    dice = random.Random(1)
    path = written(tmp_path, {"a": np.arange(6, dtype="f4"), "b": [np.ones(2)][0]})
    good = path.read_bytes()
    with h5py.File(path) as file:
        row = file["data"].id.get_chunk_info(0).byte_offset
    heap = good.index(b"GCOL")
    places = [*range(row, row + 16), *range(heap, heap + 400)]
    tracemalloc.start()
    for _ in range(300):
        data = bytearray(good)
        data[dice.choice(places)] = dice.randrange(256)
        path.write_bytes(data)
        with suppress(FormatError):
            deepdish.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
