"""Every form of a checkpoint that the real TensorFlow wrote."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.weights import read as read_weights
from deeplab_zoo.proto.errors import MismatchError

from .variables import as_saved, native_of, variable

NETWORK = ("conv1/*", "bn*", "res*", "fc1*")


@pytest.fixture(scope="module")
def tf(shared: Path) -> Path:
    return shared / "golden" / "tf"


def check_manifest(state: Mapping[str, np.ndarray[Any, Any]], tf: Path) -> None:
    manifest = json.loads((tf / "full" / "manifest_div8.json").read_text())
    found = {
        variable(name): {
            "shape": list(as_saved(data).shape),
            "sha256": hashlib.sha256(as_saved(data).tobytes()).hexdigest(),
        }
        for name, data in state.items()
    }
    assert found == manifest


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    ["v2/model.ckpt", "v2/model.ckpt.index", "v2/model.ckpt.data-00000-of-00001",
     "v2/model.ckpt.meta", "v2", "v1/model.ckpt", "v2_sharded/model.ckpt", "object/ckpt-1"],
)  # fmt: skip
def test_every_form_of_a_checkpoint_gives_the_variables_bit_for_bit(tf: Path, name: str) -> None:
    native = native_of(tf / "small" / name)
    check_manifest(native.weights.state, tf)
    assert native.weights.numerics.name == "tf-slim"
    assert native.weights.config == DeepLabV2Config(stem=8, widths=(8, 16, 32, 64))
    assert native.notes == ()


@pytest.mark.golden
@pytest.mark.parametrize(
    "name",
    ["small_v2_snappy", "small_v2_snappy_blocks1024", "small_v2_blocks512_restart1",
     "small_v2_restart64"],
)  # fmt: skip
def test_indexes_with_other_blocks_give_the_same(tf: Path, tmp_path: Path, name: str) -> None:
    data = "model.ckpt.data-00000-of-00001"
    (tmp_path / data).symlink_to(tf / "small" / "v2" / data)
    shutil.copy(tf / "small" / "exotic" / f"{name}.index", tmp_path / "model.ckpt.index")
    check_manifest(native_of(tmp_path / "model.ckpt").weights.state, tf)


@pytest.mark.golden
def test_a_training_state_gives_the_network_and_says_what_was_left(tf: Path) -> None:
    native = native_of(tf / "small" / "v2_train" / "model.ckpt-20000", *NETWORK)
    check_manifest(native.weights.state, tf)
    dropped = dict(native.conversion.dropped)
    assert dropped["conv1/weights/Momentum"] == "an optimizer's slot"
    assert dropped["fc1_voc12_c3/biases/Momentum"] == "an optimizer's slot"
    assert dropped["extras/label"] == dropped["global_step"] == "not selected by --variables"
    assert Counter(dropped.values()) == {
        "an optimizer's slot": 112,
        "not selected by --variables": 25,
    }
    assert len(dropped) + len(native.conversion.state) == 665


@pytest.mark.golden
def test_all_that_is_neither_network_nor_known_is_one_error(tf: Path) -> None:
    with pytest.raises(MismatchError, match=r"^21 variables are neither weights nor") as caught:
        native_of(tf / "small" / "v2_train" / "model.ckpt-20000")
    assert "  extras/label: string []\n" in str(caught.value)
    assert "  partitioned/cols: float32 [4, 10]\n" in str(caught.value)
    assert str(caught.value).endswith(
        "To take only some variables: convert tf --variables PATTERN."
    )
    assert "Momentum" not in str(caught.value)


@pytest.mark.golden
def test_a_checkpoint_of_some_variables_is_no_network(tf: Path) -> None:
    with pytest.raises(MismatchError, match="no weights for whole stages of the backbone"):
        native_of(tf / "small" / "v1_sharded" / "model.ckpt")


@pytest.mark.golden
def test_files_written_from_a_checkpoint_hold_its_values_and_provenance(
    tf: Path, tmp_path: Path
) -> None:
    keep = tmp_path / "keep.h5"
    out = tmp_path / "x.safetensors"
    source = tf / "small" / "v2_sharded" / "model.ckpt"
    deeplab_zoo.convert_tensorflow(source, out, keep_hdf5=keep, multi_scale=True)
    found = read_weights(out)
    check_manifest(found.state, tf)
    assert found.config.scales == (1.0, 0.75, 0.5)
    assert found.numerics.name == "tf-slim"
    assert found.origin.framework == "tensorflow"
    shards = [f"model.ckpt.data-0000{index}-of-00003" for index in range(3)]
    assert sorted(found.origin.files) == [*shards, "model.ckpt.index"]
    digest = hashlib.sha256((source.parent / shards[1]).read_bytes()).hexdigest()
    assert found.origin.files[shards[1]] == digest
    model = deeplab_zoo.load(keep)
    check_manifest(
        {name: model.state_dict()[name].numpy() for name in parameters(model.config)}, tf
    )
