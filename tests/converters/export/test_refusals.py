"""What is not exported, or only if it is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deeplab_zoo
from deeplab_zoo.converters.export import TARGETS
from deeplab_zoo.converters.numerics import CAFFE_V2, TF_SLIM, Numerics
from deeplab_zoo.proto.errors import MismatchError, UsageError

Store = Callable[..., Path]


@pytest.mark.parametrize(
    ("numerics", "to", "theirs"),
    [
        (TF_SLIM, "caffe", "caffe-v2"),
        (CAFFE_V2, "tf", "tf-slim"),
        (CAFFE_V2, "tf-v1", "tf-slim"),
        (CAFFE_V2, "npy", "tf-slim"),
    ],
)
def test_weights_of_other_conventions_need_to_be_asked_for(
    store: Store, tmp_path: Path, numerics: Numerics, to: str, theirs: str
) -> None:
    source = store(numerics=numerics)
    out = tmp_path / f"y{TARGETS[to].suffix}"
    words = f"trained under {numerics.name!r}.*run under {theirs!r}.*--mixed-numerics"
    with pytest.raises(MismatchError, match=words):
        deeplab_zoo.export(source, out, to=to)
    assert {one.name for one in tmp_path.iterdir()} == {source.name}
    assert deeplab_zoo.export(source, out, to=to, mixed_numerics=True)


def test_a_prototxt_of_mixed_numerics_states_the_epsilon_of_the_weights(
    store: Store, tmp_path: Path
) -> None:
    _, text = deeplab_zoo.export(
        store(), tmp_path / "y.caffemodel", to="caffe", mixed_numerics=True
    )
    assert "eps: 0.001" in text.read_text()


@pytest.mark.parametrize(
    ("out", "how", "complaint"),
    [
        ("y.pth", {"to": "onnx"}, "target 'onnx' is unknown, expected one of pth, safetensors"),
        ("y.pth", {"layout": "mine"}, "layout 'mine' is unknown, expected one of canonical"),
        ("y.h5", {}, "expected a name that ends in .pth for pth"),
        ("y.bin", {"to": "caffe"}, "expected a name that ends in .caffemodel for caffe"),
        ("y", {"to": "npy"}, "expected a name that ends in .npy for npy"),
        ("y.h5", {"to": "h5", "layout": "isht7"}, "layout 'isht7' goes with pth or safetensors"),
        ("y", {"to": "tf", "layout": "isht7"}, "goes with pth or safetensors, not with tf"),
    ],
)
def test_targets_names_and_layouts_that_cannot_be_are_refused(
    store: Store, tmp_path: Path, out: str, how: dict[str, Any], complaint: str
) -> None:
    source = store()
    with pytest.raises(UsageError, match=complaint):
        deeplab_zoo.export(source, tmp_path / out, **how)
    assert {one.name for one in tmp_path.iterdir()} == {source.name}


@pytest.mark.parametrize(("to", "name"), [("tf", "."), ("tf", "/"), ("tf-v1", "folder/")])
def test_a_checkpoints_prefix_must_be_a_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, name: str
) -> None:
    source = store()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(deeplab_zoo.ZooError, match="is a folder"):
        deeplab_zoo.export(source, name, to=to)


@pytest.mark.parametrize("to", TARGETS)
def test_a_missing_folder_is_named(store: Store, tmp_path: Path, to: str) -> None:
    out = tmp_path / "none" / f"y{TARGETS[to].suffix}"
    with pytest.raises(deeplab_zoo.ZooError, match="the folder .*none does not exist"):
        deeplab_zoo.export(store(), out, to=to, mixed_numerics=True)


def test_a_caffemodel_comes_with_its_prototxt_or_not_at_all(store: Store, tmp_path: Path) -> None:
    source = store(numerics=CAFFE_V2)
    (tmp_path / "y.prototxt").mkdir()
    with pytest.raises(deeplab_zoo.ZooError, match="y.prototxt: is a folder"):
        deeplab_zoo.export(source, tmp_path / "y.caffemodel", to="caffe")
    assert not (tmp_path / "y.caffemodel").exists()


def test_the_source_is_not_written_over(store: Store) -> None:
    source = store()
    held = source.read_bytes()
    with pytest.raises(UsageError, match="is read or written already"):
        deeplab_zoo.export(source, source, to="safetensors", layout="isht7")
    assert source.read_bytes() == held
