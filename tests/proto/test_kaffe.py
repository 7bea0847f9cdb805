"""caffe-tensorflow's weights, as Python 2 and 3 write them, and as we do."""

import base64
import hashlib
import io
import random
import re
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.proto import kaffe
from deeplab_zoo.proto.errors import FormatError

# `numpy.save` of `layers()` by Python 2.7.18 with NumPy 1.16.6, compressed.
PYTHON_2 = (
    "c-o~;%Sr<=6wOR+t>gRca&|L<loniw2%RE`7_1^>;X))cO`SqJ(>$h9Y+*J<y7mYB6a5tbL~m+Avi6eXklb_6IeBZ6"
    ">)U$^4bY3%Vloomsq2kyyd&3Zr$PyuJf@<>^z#MnN(S#TrhNu?|M18iyZ<XEx1%KM^@o)x6|B<Bx~fBkphM?TuqaKW"
    "5?Q1iZvC>Hr1jh7HbxU-g|BzK;A87>-fpR3pE-Pi*f%E_VGG(t9~X!<YBrl!-%zsy*Ht)u;H5EN^hptH1~pzD^Ch1w"
    "KC{kKtR#10EB^CX1`k-cfNgB681&o6bN!W>{+X$dK%Z36tUd#T@;X9afJpBK0N@5-4(I~D16CU<B&D!JC6j#BuwT>O"
    "_9R}Jk}?Q>py2Xcg&8S?NsX_M`G!x*11dT+i5TBBMz@SnodX5nQ<M?yGQMqacMPu18fb1QZMP*;eAgiF8D#yTT$2}i"
    "j3#{FpdOgINauj~8C7BB2djv$mH"
)


def layers() -> dict[str, dict[str, Any]]:
    """A convolution whose weights are a transposed view, and batch normalisation."""
    weights = np.arange(12, dtype="f4").reshape(2, 3, 1, 2).transpose(2, 1, 3, 0)
    normal = ("mean", "variance", "scale", "offset")
    return {
        "conv1": {"weights": weights, "biases": np.array([-1.5, 200.25], "f4")},
        "bn1": {name: np.arange(2, dtype="f4") + index for index, name in enumerate(normal)},
    }


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(value, object) if isinstance(value, dict) else value, allow_pickle=True)
    return file.getvalue()


def decode(data: bytes) -> dict[str, Any]:
    return kaffe.decode(memoryview(data), "a.npy")


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for layer in expected:
        assert found[layer].keys() == expected[layer].keys()
        for name, array in expected[layer].items():
            np.testing.assert_array_equal(found[layer][name], array, strict=True)


def with_header(header: bytes, version: int = 1) -> bytes:
    """The pickle of `layers` behind another header."""
    size = 2 if version == 1 else 4
    data = saved(layers())
    old = 10 + int.from_bytes(data[8:10], "little")
    length = len(header).to_bytes(size, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data[old:]


def test_a_file_of_python_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.npy"
    path.write_bytes(zlib.decompress(base64.b85decode(PYTHON_2)))
    assert_equal(kaffe.read(path), layers())


def test_a_file_of_python_3_is_read() -> None:
    assert_equal(decode(saved(layers())), layers())


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("kind", [b"|O", b"|O4", b"|O8"])
def test_every_header_of_numpy_is_read(kind: bytes, version: int) -> None:
    header = b"{'descr': '%s', 'fortran_order': False, 'shape': (), }   \n" % kind
    assert_equal(decode(with_header(header, version)), layers())


def test_a_layer_that_is_a_list_holds_weights_and_biases() -> None:
    conv = layers()["conv1"]
    listed = {"conv1": [conv["weights"], conv["biases"]], "fc": [np.ones((2, 3), "f8")]}
    expected = {"conv1": conv, "fc": {"weights": np.ones((2, 3), "f8")}}
    assert_equal(decode(saved(listed)), expected)


def test_numpy_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "net.npy"
    path.write_bytes(kaffe.encode(layers()))
    assert_equal(np.load(path, allow_pickle=True).item(), layers())
    assert_equal(kaffe.read(path), layers())


def test_the_header_we_write_is_numpys() -> None:
    assert kaffe.encode(layers())[:128] == saved(layers())[:128]


def test_equal_arrays_give_equal_bytes() -> None:
    data = kaffe.encode(layers())
    assert (
        hashlib.sha256(data).hexdigest()
        == "3bb92163458fdab1d6dac81c60faa1351e9559389cb9e05c6923eadc88fbbeca"
    )
    assert kaffe.encode(decode(data)) == data
    big_endian = {n: {k: a.astype(">f4") for k, a in v.items()} for n, v in layers().items()}
    assert kaffe.encode(big_endian) == data


@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (40000,)])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_every_float_survives_the_way_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    written: dict[str, dict[str, Any]] = {
        "a/b": {"weights": np.full(shape, -0.5, dtype)},
        "é": {"biases": np.ones(1, dtype)},
    }
    data = kaffe.encode(written)
    assert_equal(decode(data), written)
    assert_equal(np.load(io.BytesIO(data), allow_pickle=True).item(), written)


def test_only_floats_are_written() -> None:
    with pytest.raises(TypeError, match="an array of int64, expected floats"):
        kaffe.encode({"a": {"weights": np.zeros(1, "i8")}})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(np.ones((2, 3), "f4")), "is an array \"{'descr': '<f4'"),
        (saved(np.array([{}, {}])), "'shape': (2,), }\", expected"),
        (saved(np.array(3, object)), "holds no dictionary"),
        (saved({}), "holds no dictionary"),
        (with_header(b"(" * 60_000), "is an array '(((("),
        (
            with_header(b"{'descr': '|O', 'fortran_order': False, 'shape': (), }" + b" " * 300),
            "is an array",
        ),
        (b"\x93NUMPY\4\0", ".npy version 4, expected 1 to 3"),
        (b"\x93NUMPY", ".npy version 0"),
        (b"\x93NUMPY\1\0", "is an array ''"),
        (kaffe.encode(layers())[:-1], "pickle at byte 128: byte"),
        (saved({"a": {"weights": np.load}}), "names 'numpy"),
        (saved({1: {}}), "a name is int"),
    ],
)
def test_something_else_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=f"^a.npy: .*{re.escape(words)}"):
        decode(data)


def test_all_layers_without_weights_are_one_error() -> None:
    wrong = {
        "a": 3,
        "b": [np.ones(1)] * 3,
        "c": {},
        "d": {"weights": np.ones(2, "i4"), "biases": [1.0]},
        "e": {"weights": np.ones(2)},
    }
    with pytest.raises(FormatError) as caught:
        decode(saved(wrong))
    assert str(caught.value).splitlines()[1:] == [
        "  a: int, expected parameters by name, or weights and biases",
        "  b: list of 3, expected parameters by name, or weights and biases",
        "  c: dict of 0, expected parameters by name, or weights and biases",
        "  d: weights is int32, expected floats",
        "  d: biases is list, expected floats",
    ]


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.npy"
    path.write_bytes(b"\x80\2}.")
    with pytest.raises(FormatError, match=r"is a pickle, expected caffe-tensorflow weights"):
        kaffe.read(path)


def test_mutations_end_in_layers_or_format_errors() -> None:
    dice = random.Random(1)
    good = saved(layers())
    tracemalloc.start()
    for _ in range(600):
        data = bytearray(good)
        for _ in range(dice.randint(1, 3)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with suppress(FormatError):
            decode(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
