"""What a pickle may hold, and that nothing it asks for is done."""

import copyreg
import os
import pickle
import pickletools
import random
import re
import struct
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.proto import pickles
from deeplab_zoo.proto.errors import FormatError

FEW_BYTES = 1_000_000

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
EMPTY_ARRAY = RECONSTRUCT + NDARRAY + b"K\0\x85C\1b\x87R"
DTYPE = b"cnumpy\ndtype\n"
FLOAT32 = DTYPE + b"U\2f4K\0K\1\x87R(K\3U\1<NNNtb"
OBJECT = DTYPE + b"U\2O8K\0K\1\x87R(K\3U\1|NNNtb"


def load(data: bytes) -> Any:
    return pickles.load(memoryview(data), "a.npy")


def array(shape: bytes, content: bytes, dtype: bytes = FLOAT32, fortran: bytes = b"\x89") -> bytes:
    """An array's pickle by hand; ``shape`` and ``content`` are opcodes."""
    return EMPTY_ARRAY + b"(K\1" + shape + dtype + fortran + content + b"tb"


def weights() -> dict[str, Any]:
    numbers = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    return {
        "conv1": {"weights": numbers, "biases": numbers[0, :, 1].astype(">f8")},
        "pool": [numbers.transpose(2, 1, 0), np.float64(0.5), np.int64(-3)],
        "step": (1, -2, 2**40, 300, 0.25, None, True),
        "scalar": np.array(7, "u1"),
    }


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, np.ndarray | np.generic):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)
    else:
        assert (type(found), found) == (type(expected), expected)


def refused(data: bytes, words: str, limit: int = FEW_BYTES) -> None:
    """The pickle ends in a `FormatError` with these words, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=f"^a.npy: byte [0-9]+: .*{re.escape(words)}"):
            load(data)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_3_pickles_comes_back_equal(protocol: int) -> None:
    assert_equal(load(pickle.dumps(weights(), protocol)), weights())


def test_strings_of_python_2_are_names_and_numbers() -> None:
    content = struct.pack("<2f", 1.5, -2.0)
    named = b"\x80\2}q\0U\5w\xe9ird" + array(b"K\2\x85", b"T\x08\0\0\0" + content) + b"s."
    assert_equal(load(named), {"w\xe9ird": np.array([1.5, -2.0], "<f4")})


def test_an_ordered_dictionary_is_a_dictionary() -> None:
    assert_equal(load(pickle.dumps(OrderedDict(b=1, a=2), 2)), {"b": 1, "a": 2})


def test_the_names_of_numpy_2_are_those_of_numpy_1() -> None:
    data = array(b"K\1\x85", b"C\4\0\0\x80\x3f").replace(b"numpy.core", b"numpy._core")
    assert_equal(load(data + b"."), np.ones(1, "<f4"))


def test_one_object_without_dimensions_is_that_object() -> None:
    assert load(array(b")", b"](}U\1aK\1se", OBJECT) + b".") == {"a": 1}


def test_arrays_are_read_only_views_of_the_bytes() -> None:
    data = pickle.dumps({"a": np.zeros(100_000, "<f4")}, 3)
    tracemalloc.start()
    found = load(data)["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < found.nbytes / 4
    assert not found.flags.writeable


def test_an_error_names_the_place_and_the_byte() -> None:
    data = b"\x80\2}U\1acos\nsystem\nU\4true\x85Rs."
    with pytest.raises(FormatError, match=r"^a\.npy: byte 6: names 'os\.system', expected NumPy"):
        load(data)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch hacked",)),
        (eval, ("open('hacked', 'w')",)),
        (getattr, ("os", "system")),
        (np.load, ("hacked.npy",)),
        (np.memmap, ("hacked", "u1", "w+", 0, (9,))),
        (np.ndarray, ((3,),)),
        (np.dtype, ("O",)),
        (np.frombuffer, (b"1234", "f4")),
        (bytearray, (10**12,)),
        (copyreg._reconstructor, (OrderedDict, object, None)),  # type: ignore[attr-defined]
    ],
)
def test_no_function_is_called(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    protocol: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(pickle.dumps({"a": Calls(function, *arguments)}, protocol), "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["numpy\nload", "numpy.core.multiarray\narray", "_codecs\ndecode", "numpy\nndarray.tofile"],
)
def test_only_the_names_in_the_table_are_known(name: str) -> None:
    refused(b"\x80\2c" + name.encode() + b"\n.", f"names {name.replace(chr(10), '.')!r}")


@pytest.mark.parametrize(
    ("opcode", "argument"),
    [
        (pickle.EXT1, b"\1"),
        (pickle.EXT2, b"\1\0"),
        (pickle.EXT4, b"\1\0\0\0"),
        (pickle.PERSID, b"1\n"),
        (pickle.BINPERSID, b""),
        (pickle.INST, b"os\nsystem\n"),
        (pickle.OBJ, b""),
        (pickle.NEWOBJ, b""),
        (pickle.NEWOBJ_EX, b""),
        (pickle.NEXT_BUFFER, b""),
        (pickle.LONG, b"9" * 5000 + b"L\n"),
        (pickle.LONG4, b"\xff\xff\xff\x7f"),
    ],
)
def test_opcodes_that_make_objects_are_refused(opcode: bytes, argument: bytes) -> None:
    refused(b"\x80\2(K\1" + opcode + argument + b".", f"opcode {opcode!r}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (RECONSTRUCT + NDARRAY + b"\x8a\6\0\0\0\0\0\1\x85C\1b\x87R.", "begins an array"),
        (RECONSTRUCT + DTYPE + b"K\0\x85C\1b\x87R.", "begins an array"),
        (array(b"\x8a\6\0\0\0\0\0\1\x85", b"C\4abcd") + b".", "4 bytes, its shape"),
        (array(b"(" + b"K\xff" * 32 + b"t", b"C\4abcd") + b".", "4 bytes, its shape"),
        (array(b"(" + b"K\1" * 33 + b"t", b"C\4abcd") + b".", "at most 32 sizes"),
        (array(b"K\0J\xff\xff\xff\x7f\x86", b"C\0") + b".", "positive integer"),
        (array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", b"C\4abcd") + b".", "positive integer"),
        (array(b"\x88\x85", b"C\4abcd") + b".", "positive integer"),
        (array(b"K\1", b"C\4abcd") + b".", "not a tuple"),
        (array(b"K\1\x85", b"K\4") + b".", "expected bytes"),
        (array(b"K\1\x85", b"C\4abcd", b"U\2f4") + b".", "expected a numpy.dtype"),
        (array(b"K\1\x85", b"]", OBJECT) + b".", "Python objects"),
        (array(b"K\1\x85", b"](K\1e", OBJECT) + b".", "Python objects"),
        (array(b")", b"C\x08abcdefgh", OBJECT) + b".", "Python objects"),
        (DTYPE + b"U\3V99K\0K\1\x87R.", "the type 'V99'"),
        (DTYPE + b"U\3f4,K\0K\1\x87R.", "the type 'f4,'"),
        (DTYPE + b"U\2f4K\0K\1\x87R(K\3U\1<NU\1aNtb.", "sets the state"),
        (DTYPE + b"U\2f4K\0K\1\x87R(K\3U\1?NNNtb.", "byte order"),
        (EMPTY_ARRAY + b".", "without its content"),
        (array(b"K\1\x85", b"C\4abcd") + b"(K\1)" + FLOAT32 + b"\x89C\4abcdtb.", "sets the state"),
        (b"cnumpy.core.multiarray\nscalar\n" + OBJECT + b"C\1a\x86R.", "Python objects"),
        (b"ccollections\nOrderedDict\n)R}U\1aK\1sb.", "sets the state of dict"),
        (RECONSTRUCT + b"}U\1aK\1sb.", "sets the state of _reconstruct"),
        (b"}U\7__doc__K\1s}b.", "sets the state of dict"),
        (NDARRAY + b"J\0\0\0\x7f\x85R.", "calls numpy.ndarray"),
        (
            array(b"K\2\x85", b"C\x08abcdefgh") + b"q\0\x85c_codecs\nencode\nU\1ah\0\x86R.",
            "for bytes",
        ),
        (b"c_codecs\nencode\nX\1\0\0\0aX\5\0\0\0utf16\x86R.", "stands for bytes"),
        (b"K\1K\2R.", "calls int"),
    ],
)
def test_an_array_is_only_what_its_bytes_hold(data: bytes, words: str) -> None:
    refused(b"\x80\2" + data, words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected 1 bytes"),
        (b"\x80\2}", "expected 1 bytes"),
        (b"\x80\0}.", "protocol 0"),
        (b"\x80\6}.", "protocol 6"),
        (b"\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.", "a frame of"),
        (b"\x80\5\x96\xff\xff\xff\xff\xff\xff\xff\xffa.", "expected 18446744073709551615 bytes"),
        (b"\x80\2T\xff\xff\xff\xffa.", "expected 4294967295 bytes"),
        (b"\x80\2c" + b"a" * 10_000, "a name is str"),
        (b"\x80\2cnumpy", "expected 6 bytes"),
        (b"\x80\2X\1\0\0\0\xff.", "not UTF-8"),
        (b"\x80\2h\7.", "recalls memo 7"),
        (b"\x80\2j\xff\xff\xff\xff.", "recalls memo 4294967295"),
        (b"\x80\2.", "not there"),
        (b"\x80\2(.", "not there"),
        (b"\x80\2K\1(\x85.", "not there"),
        (b"\x80\2t.", "a mark that is not there"),
        (b"\x80\2K\1K\2a.", "appends to int"),
        (b"\x80\2](K\1u.", "sets 1 keys"),
        (b"\x80\2}(K\1u.", "sets 1 keys"),
        (b"\x80\2}K\1K\1s.", "a name is int"),
        (b"\x80\2})K\1s.", "a name is tuple"),
        (b"\x80\2}U\1aK\1sC\1aK\1s.", "the name 'a' twice"),
        (b"\x80\2}X\0\1\0\0" + b"a" * 256 + b"K\1s.", "at most 255"),
        (b"\x80\2}}.", "1 values"),
        (b"\x80\2}.}", "1 bytes unused"),
    ],
)
def test_a_damaged_pickle_is_refused(data: bytes, words: str) -> None:
    refused(data, words)


def test_a_huge_memo_index_takes_no_memory() -> None:
    assert load(b"\x80\2}r\xff\xff\xff\xff.") == {}


@pytest.mark.parametrize(
    ("nested", "words"),
    [
        (b")" + b"\x85" * 20_000, "a name is tuple"),
        (b")" + b"q\0h\0\x86" * 20_000, "a name is tuple"),
        (b"](" * 20_000 + b"e" * 20_000, "a name is list"),
        (b"}U\1a" * 20_000, "a mark that"),
    ],
)
def test_deep_nesting_neither_crashes_nor_hangs(nested: bytes, words: str) -> None:
    refused(b"\x80\2}" + nested + b"K\1st.", words, 20_000_000)


def test_a_list_within_itself_is_read() -> None:
    found = load(b"\x80\2]q\0h\0a.")
    assert found[0] is found


def test_endless_operations_are_cut_off() -> None:
    refused(b"\x80\2" + b"}" * 1_000_000, "more than 262144 operations", 100_000_000)


def test_the_same_bytes_are_not_given_again_and_again() -> None:
    stored = array(b"M\0\1\x85", b"B\0\4\0\0" + bytes(1024)) + b"q\1"
    refused(b"\x80\2](" + stored + b"h\1" * 1000 + b"e.", "arrays of more bytes")
    encode = b"c_codecs\nencode\nq\0X\0\x10\0\0" + b"a" * 4096 + b"X\6\0\0\0latin1\x86q\1R"
    refused(b"\x80\2" + encode + b"h\0h\1R" * 1000 + b".", "arrays of more bytes")


def test_every_truncation_is_refused() -> None:
    data = pickle.dumps(weights(), 4)
    for stop in range(len(data)):
        with pytest.raises(FormatError):
            load(data[:stop])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_mutations_end_in_values_or_format_errors(protocol: int) -> None:
    dice = random.Random(protocol)
    good = pickle.dumps(weights(), protocol)
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes] + [0, 1, 0x7F, 0xFF]
    tracemalloc.start()
    read = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data))
            if dice.random() < 0.2:
                del data[at : at + dice.randint(1, 8)]
            elif dice.random() < 0.2:
                start = dice.randrange(len(data))
                data[at:at] = data[start : start + dice.randint(1, 30)]
            else:
                data[at] = dice.choice((dice.randrange(256), dice.choice(opcodes)))
        try:
            load(bytes(data))
            read += 1
        except FormatError:
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < read < 500
    assert peak < FEW_BYTES
