"""Checkpoints we write: read by real TensorFlow, and equal to its own byte for byte."""

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.checkpoint_write import write_v1, write_v2
from deeplab_zoo.proto.errors import FormatError

SMALL = Path(__file__).parents[2].parent / "shared" / "golden" / "tf" / "small"

Arrays = dict[str, np.ndarray[Any, Any]]


def variables() -> Arrays:
    """Every type, odd shapes, names whose order is that of bytes, not of words."""
    random = np.random.default_rng(11)
    integers = {
        f"integers/{code}": np.array(
            [[np.iinfo(code).min, np.iinfo(code).max, 0], [1, 100, 127]], code
        )
        for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
    }
    return {
        "conv1/weights": random.normal(size=(7, 5, 3, 11)).astype("f4"),
        "conv10/weights": random.normal(size=(3, 3, 300, 40)).astype("f4"),
        "Conv/größe": random.normal(size=(4,)).astype("f8"),
        "bits": np.array([0x7FC00001, 0xFF800000, 1, 0x80000000], "u4").view("f4"),
        "half": random.normal(size=(2, 3)).astype("f2"),
        "complex": (random.normal(size=3) + 1j).astype("c8"),
        "complex/wide": (random.normal(size=3) - 2j).astype("c16"),
        "mask": np.array([[True, False, True]]),
        "empty": np.zeros((0, 3), "f4"),
        "global_step": np.array(20000, "i8"),
        "names": np.array([[b"background", b""], [b"\0\xff", b"x" * 300]], object),
        **integers,
    }


def write(folder: Path, arrays: Arrays) -> dict[str, Path]:
    paths = {"V2": folder / "two.ckpt", "V1": folder / "one.ckpt"}
    data = folder / "two.ckpt.data-00000-of-00001"
    with (folder / "two.ckpt.index").open("wb") as index, data.open("wb") as shard:
        write_v2(arrays, index, shard)
    with paths["V1"].open("wb") as file:
        write_v1(arrays, file)
    return paths


def assert_equal(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("version", ["V2", "V1"])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, version: str) -> None:
    checkpoint = open_checkpoint(write(tmp_path, variables())[version])
    assert checkpoint.format == version
    assert checkpoint.notes == ()
    assert set(checkpoint) == set(variables())
    for name, expected in variables().items():
        assert_equal(checkpoint[name].read(), expected)


def test_many_integers_are_read_as_written(tmp_path: Path) -> None:
    # More than one piece of varints, of every length.
    numbers = (
        np.random.default_rng(5).integers(-(2**63), 2**63 - 1, 30_011) >> np.arange(30_011) % 63
    )
    paths = write(tmp_path, {"numbers": numbers})
    assert_equal(open_checkpoint(paths["V1"])["numbers"].read(), numbers)


def test_big_endian_and_strided_arrays_are_written_as_their_values(tmp_path: Path) -> None:
    plain = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    for version, path in write(tmp_path, {"a": plain.astype(">f4"), "b": plain.T}).items():
        checkpoint = open_checkpoint(path)
        assert_equal(checkpoint["a"].read(), plain)
        assert_equal(checkpoint["b"].read(), np.ascontiguousarray(plain.T))
        assert checkpoint.format == version


def test_equal_variables_give_equal_files_in_whatever_order(tmp_path: Path) -> None:
    forward, backward = tmp_path / "forward", tmp_path / "backward"
    for folder, pairs in (
        (forward, list(variables().items())),
        (backward, list(reversed(variables().items()))),
    ):
        folder.mkdir()
        write(folder, dict(pairs))
    for path in forward.iterdir():
        assert path.read_bytes() == (backward / path.name).read_bytes()


def test_types_tensorflow_does_not_have_are_refused() -> None:
    odd = {"w": np.zeros(3, "M8[s]")}
    with pytest.raises(FormatError, match="w: numbers of type datetime64"):
        write_v2(odd, io.BytesIO(), io.BytesIO())
    with pytest.raises(FormatError, match="w: numbers of type datetime64"):
        write_v1(odd, io.BytesIO())
    with pytest.raises(FormatError, match="empty name"):
        write_v1({"": np.zeros(3)}, io.BytesIO())


@pytest.mark.golden
@pytest.mark.skipif(not SMALL.is_dir(), reason=f"no reference data at {SMALL}")
def test_the_files_are_those_of_tensorflows_saver(tmp_path: Path) -> None:
    saved = open_checkpoint(SMALL / "v2" / "model.ckpt")
    paths = write(tmp_path, {name: variable.read() for name, variable in saved.items()})
    for name in ("index", "data-00000-of-00001"):
        ours = Path(f"{paths['V2']}.{name}").read_bytes()
        assert ours == (SMALL / "v2" / f"model.ckpt.{name}").read_bytes()
    assert paths["V1"].read_bytes() == (SMALL / "v1" / "model.ckpt").read_bytes()


READ_BY_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
out = {}
for version, path in (("V2", sys.argv[1]), ("V1", sys.argv[2])):
    reader = tf.train.load_checkpoint(path)
    types = reader.get_variable_to_dtype_map()
    for name, shape in reader.get_variable_to_shape_map().items():
        # Saver's own op: the reader's Python binding lacks some types in V1.
        value = tf.raw_ops.RestoreV2(
            prefix=path, tensor_names=[name], shape_and_slices=[""], dtypes=[types[name]]
        )[0].numpy()
        assert list(value.shape) == shape, (name, value.shape, shape)
        out[f"{version}|{name}"] = np.asarray(value)
np.savez(sys.argv[3], **{key.replace("/", "|"): value for key, value in out.items()})
"""


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow")
def test_tensorflow_reads_both_formats_bit_for_bit(tmp_path: Path) -> None:
    paths = write(tmp_path, variables())
    out = tmp_path / "read.npz"
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", READ_BY_TENSORFLOW, str(paths["V2"]), str(paths["V1"]), out]
    done = subprocess.run(
        command, env=os.environ | quiet, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = {f"{v}|{n}".replace("/", "|"): a for v in paths for n, a in variables().items()}
    with np.load(out, allow_pickle=True) as found:  # Our own subprocess wrote it: strings.
        assert set(found.files) == set(expected)
        for name in found.files:
            assert_equal(found[name], expected[name])
