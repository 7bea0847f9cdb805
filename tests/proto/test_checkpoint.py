"""Checkpoints of real TensorFlow, read without it: the same names, the same bits."""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.proto.checkpoint import Checkpoint, object_path, open_checkpoint
from deeplab_zoo.proto.checkpoint_slices import slice_key, sliced_name
from deeplab_zoo.proto.errors import FormatError, ZooError

OWN = Path(__file__).parents[1] / "golden" / "tf_corrupt"
BASE = OWN / "base"
SHARED = Path(__file__).parents[2].parent / "shared" / "golden" / "tf"
SMALL = SHARED / "small"

golden = [
    pytest.mark.golden,
    pytest.mark.skipif(not SMALL.is_dir(), reason=f"no reference data at {SMALL}"),
]


def truth(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as arrays:
        return {name.replace("|", "/"): arrays[name] for name in arrays.files}


def assert_equal(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Same shape, type and bits; strings are kept as ``S10`` in the truth."""
    if found.dtype == object:
        found = found.astype(expected.dtype)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


def digests(checkpoint: Checkpoint) -> dict[str, tuple[list[int], str]]:
    names = checkpoint.full_names
    return {
        names.get(key, key): (
            list(variable.shape),
            hashlib.sha256(variable.read().tobytes()).hexdigest(),
        )
        for key, variable in checkpoint.items()
        if variable.dtype == "float32"
    }


# -- What is at hand everywhere ------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["v2", "v2s", "v1", "v1s"])
def test_every_format_gives_what_tensorflow_reads(prefix: str) -> None:
    checkpoint = open_checkpoint(BASE / prefix)
    expected = truth(OWN / "truth.npz")
    assert checkpoint.notes == ()
    assert checkpoint.format == prefix[:2].upper()
    assert set(checkpoint) == set(expected)
    for name, variable in checkpoint.items():
        assert variable.shape == expected[name].shape
        assert_equal(variable.read(), expected[name])


def test_types_carry_tensorflows_names() -> None:
    checkpoint = open_checkpoint(BASE / "v2")
    kinds = {name: checkpoint[name].dtype for name in ("conv1/weights", "global_step", "classes")}
    assert kinds == {"conv1/weights": "float32", "global_step": "int64", "classes": "string"}


@pytest.mark.parametrize("prefix", ["v2", "v1"])
def test_floats_are_views_of_the_mapped_file(prefix: str) -> None:
    weights = open_checkpoint(BASE / prefix)["conv1/weights"].read()
    assert not weights.flags.owndata
    assert not weights.flags.writeable


def test_every_name_of_a_v2_checkpoint_is_the_same_checkpoint(tmp_path: Path) -> None:
    data = "model.ckpt-20000.data-00000-of-00001"
    shutil.copy(BASE / "v2.index", tmp_path / "model.ckpt-20000.index")
    shutil.copy(BASE / "v2.data-00000-of-00001", tmp_path / data)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-20000"\n')
    prefix = tmp_path / "model.ckpt-20000"
    for name in ("", ".index", ".meta", ".data-00000-of-00001"):
        assert open_checkpoint(f"{prefix}{name}").path == prefix
    for place in (tmp_path, tmp_path / "checkpoint"):
        assert open_checkpoint(place).path == prefix


def test_every_name_of_v1_shards_is_the_same_checkpoint() -> None:
    for name in ("v1s", "v1s-00000-of-00002", "v1s-00001-of-00002", "v1s-?????-of-00002"):
        checkpoint = open_checkpoint(BASE / name)
        assert len(checkpoint.files) == 2
        assert len(checkpoint) == 10


def test_shards_of_other_checkpoints_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("v1s-00000-of-00002", "v1s-00001-of-00002"):
        shutil.copy(BASE / name, tmp_path / name)
        shutil.copy(BASE / name, tmp_path / name.replace("v1s", "v1s-20000"))
    assert len(open_checkpoint(tmp_path / "v1s").files) == 2
    assert len(open_checkpoint(tmp_path / "v1s-20000").files) == 2
    shutil.copy(BASE / "v1", tmp_path / "v1s-00000-of-00001")
    with pytest.raises(ZooError, match="2 different checkpoints"):
        open_checkpoint(tmp_path / "v1s")
    assert len(open_checkpoint(tmp_path / "v1s-00000-of-00001").files) == 1


def test_the_content_tells_the_format(tmp_path: Path) -> None:
    shutil.copy(BASE / "v1", tmp_path / "weights.index")
    assert open_checkpoint(tmp_path / "weights.index").format == "V1"
    (tmp_path / "checkpoint").write_bytes((BASE / "v1").read_bytes())
    assert open_checkpoint(tmp_path / "checkpoint").format == "V1"


@pytest.mark.parametrize("folder", ["/data/run/", "snapshots/", r"C:\\run\\"])
def test_a_moved_folder_still_names_its_newest_checkpoint(tmp_path: Path, folder: str) -> None:
    shutil.copy(BASE / "v1", tmp_path / "model.ckpt-7")
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "{folder}model.ckpt-7"\n'
        f'all_model_checkpoint_paths: "{folder}model.ckpt-7"\n'
    )
    assert open_checkpoint(tmp_path).path == tmp_path / "model.ckpt-7"


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    shutil.copy(BASE / "v2.index", tmp_path / "model.ckpt-20000.index")
    with pytest.raises(ZooError, match=r"model\.ckpt-20000\.index"):
        open_checkpoint(tmp_path / "model.ckpt")
    assert open_checkpoint(tmp_path).path.name.startswith("model.ckpt-20000")
    shutil.copy(BASE / "v2.index", tmp_path / "model.ckpt-10000.index")
    with pytest.raises(FormatError, match=r"without a file 'checkpoint'(.|\n)*model\.ckpt-20000"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text("# nothing\n")
    with pytest.raises(FormatError, match="names no checkpoint"):
        open_checkpoint(tmp_path)


def test_a_missing_shard_is_noted_and_its_variables_name_it(tmp_path: Path) -> None:
    for name in ("v2s.index", "v2s.data-00000-of-00002"):
        shutil.copy(BASE / name, tmp_path / name)
    checkpoint = open_checkpoint(tmp_path / "v2s")
    assert any("v2s.data-00001-of-00002" in note for note in checkpoint.notes)
    with pytest.raises(FormatError, match=r"v2s\.data-00001-of-00002 is missing"):
        checkpoint["classes"].read()
    assert checkpoint["conv1/weights"].read().shape == (7, 7, 3, 8)


def test_slice_keys_are_in_ordered_code() -> None:
    # The first two as TensorFlow wrote them.
    assert slice_key(b"part", ((3, 3), (0, 4))) == b"\0part\0\1\1\2\x83\x83\x80\x84"
    assert slice_key(b"bn_conv1/beta", ((0, -1),)) == b"\0bn_conv1/beta\0\1\1\1\x80\x7f"
    assert slice_key(b"a\0\xff", ()) == b"\0a\0\xff\xff\0\0\1\0"
    numbers = [0, 1, 63, 64, 300, 8191, 8192, 2**20, 2**34, 2**40, 2**55, 2**56, 2**62, 2**63 - 1]
    keys = [slice_key(b"n", ((number, 1),)) for number in numbers]
    assert keys == sorted(keys)
    assert len(keys[-1]) - len(keys[0]) == 9
    assert sliced_name(slice_key(b"a\0\xff\1b", ((5, 2),))) == b"a\0\xff\1b"


def test_object_keys_are_unescaped() -> None:
    assert object_path("d/a.Sb/.ATTRIBUTES/VARIABLE_VALUE") == ("d", "a/b")
    assert object_path("d/with..dot/.ATTRIBUTES/VARIABLE_VALUE") == ("d", "with.dot")
    assert object_path("x/..S/.ATTRIBUTES/VARIABLE_VALUE") == ("x", ".S")


# -- Everything else TensorFlow wrote ------------------------------------------------------


@pytest.fixture(scope="module")
def manifest() -> dict[str, tuple[list[int], str]]:
    stated = json.loads((SHARED / "full" / "manifest_div8.json").read_text())
    return {name: (item["shape"], item["sha256"]) for name, item in stated.items()}


class TestGolden:
    pytestmark = golden

    @pytest.mark.parametrize(
        ("prefix", "count"),
        [
            ("v2/model.ckpt", 528),
            ("v1/model.ckpt", 528),
            ("v2_sharded/model.ckpt", 528),
            ("v1_sharded/model.ckpt-?????-of-00003", 47),
            ("v2_train/model.ckpt-20000", 528),
            ("object/ckpt-1", 528),
        ],
    )
    def test_model_variables_are_bit_identical(
        self, prefix: str, count: int, manifest: dict[str, tuple[list[int], str]]
    ) -> None:
        checkpoint = open_checkpoint(SMALL / prefix)
        found = digests(checkpoint)
        model = {name: found[name] for name in manifest if name in found}
        assert checkpoint.notes == ()
        assert len(model) == count
        assert model == {name: manifest[name] for name in model}

    @pytest.mark.parametrize(
        "index",
        [
            "small_v2_snappy",
            "small_v2_snappy_blocks1024",
            "small_v2_blocks512_restart1",
            "small_v2_restart64",
        ],
    )
    def test_unusual_tables_are_read(
        self, index: str, tmp_path: Path, manifest: dict[str, tuple[list[int], str]]
    ) -> None:
        shutil.copy(SMALL / "exotic" / f"{index}.index", tmp_path / "m.index")
        data = SMALL / "v2" / "model.ckpt.data-00000-of-00001"
        (tmp_path / "m.data-00000-of-00001").symlink_to(data)
        assert digests(open_checkpoint(tmp_path / "m")) == manifest

    @pytest.mark.parametrize(
        "prefix",
        [
            "v2_train/model.ckpt-20000",
            "extras/extras_v2.ckpt",
            "extras/extras_v1.ckpt",
            "exotic/extras_v2_snappy.ckpt",
            "exotic/extras_v1_snappy.ckpt",
            "exotic/extras_v1_snappy_blocks256.ckpt",
            "exotic/extras_v2_bigendian.ckpt",
        ],
    )
    def test_every_type_and_partition_is_bit_identical(self, prefix: str) -> None:
        checkpoint = open_checkpoint(SMALL / prefix)
        expected = truth(SMALL / "v2_train_extras_truth.npz")
        names = {name.partition("#")[0] for name in expected} & set(checkpoint)
        missing = {name.partition("#")[0] for name in expected} - names
        if "v2_train" in prefix:
            assert missing == set()
        else:
            assert missing <= {"extras/bf16", "Variable", "Variable_1", "Variable_2"}
        for name in names:
            found = checkpoint[name].read()
            if checkpoint[name].dtype == "bfloat16":
                bits = expected[f"{name}#bfloat16_bits"]
                assert found.dtype == np.float32
                assert_equal((found.view(np.uint32) >> 16).astype(np.uint16), bits)
            elif checkpoint[name].dtype == "string":
                lengths = expected[f"{name}#bytes_len"]
                assert [len(value) for value in found.flat] == lengths.ravel().tolist()
                assert b"".join(found.flat) == expected[f"{name}#bytes_concat"].tobytes()
                assert found.shape == lengths.shape
            else:
                assert_equal(found, expected[name])

    def test_a_big_endian_bundle_is_noted(self) -> None:
        checkpoint = open_checkpoint(SMALL / "exotic" / "extras_v2_bigendian.ckpt")
        assert any("big-endian" in note for note in checkpoint.notes)

    def test_training_slots_are_bit_identical(self) -> None:
        checkpoint = open_checkpoint(SMALL / "v2_train" / "model.ckpt-20000")
        assert len(checkpoint) == 665
        assert sum(name.endswith("/Momentum") for name in checkpoint) == 112
        for name, expected in truth(SMALL / "v2_train_momentum.npz").items():
            assert_equal(checkpoint[name].read(), expected)

    def test_object_keys_have_the_full_names_of_the_graph(self) -> None:
        checkpoint = open_checkpoint(SMALL / "object" / "ckpt-1")
        stated = json.loads((SMALL / "object" / "keys_to_full_names.json").read_text())
        assert checkpoint.full_names == stated
        assert set(stated) <= set(checkpoint)
        tiny = open_checkpoint(SMALL / "object" / "tiny_escape")
        stated = json.loads((SMALL / "object" / "tiny_escape.json").read_text())
        names = {key: item["full_name"] for key, item in stated.items()}
        assert {key: tiny.full_names[key] for key in stated} == names
        assert {key: tiny[key].read().tolist() for key in stated} == {
            key: item["value"] for key, item in stated.items()
        }

    @pytest.mark.parametrize("prefix", ["v2/model.ckpt", "v1/model.ckpt"])
    def test_listing_takes_milliseconds(self, prefix: str) -> None:
        # 5 to 10 ms on an idle core; the bound leaves room for a loaded machine.
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            open_checkpoint(SMALL / prefix)
            taken.append(time.perf_counter() - start)
        assert min(taken) < 0.1


def test_of_a_folder_only_whole_indexes_are_offered(tmp_path: Path) -> None:
    with pytest.raises(
        FormatError, match=r"says which checkpoint is the newest. There is no .index"
    ):
        open_checkpoint(tmp_path)
    for name in ("a.index", "b.index", "a.index.part"):
        (tmp_path / name).touch()
    with pytest.raises(FormatError, match=r"Name one:\n  a\n  b$"):
        open_checkpoint(tmp_path)
