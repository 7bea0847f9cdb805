"""A weights file or an entry becomes a model: by name, by path, by torch.hub; and what is none."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.proto.errors import (
    FormatError,
    MismatchError,
    UnverifiedError,
    UsageError,
    ZooError,
)

ROOT = Path(__file__).parents[2]
Make = Callable[..., tuple[Path, Path]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPLAB_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPLAB_ZOO_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("DEEPLAB_ZOO_REGISTRY", str(tmp_path / "registry.yaml"))
    return tmp_path / "cache"


def register(tmp_path: Path, recipe: dict[str, Any], artifact: dict[str, Any]) -> None:
    entry = {
        "name": "ours", "kind": "model", "description": "d", "license": {"spdx": "MIT"},
        "homepage": "h", "arch": {"family": "deeplab_v2", "backbone": "resnet101"},
        "trained_on": {"dataset": "d", "split": "s"}, "numerics": "caffe-v2",
        "artifacts": [artifact], "recipe": recipe,
    }  # fmt: skip
    text = yaml.safe_dump({"schema_version": 1, "entries": [entry]})
    (tmp_path / "registry.yaml").write_text(text)


@pytest.fixture
def published(tmp_path: Path, make_net: Make, tiny_config: DeepLabV2Config) -> Path:
    """A caffemodel in a zip, as the authors publish theirs, without a digest."""
    text, binary = make_net(tiny_config)
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as file:
        file.write(text, "net/deploy.prototxt")
        file.write(binary, "net/train.caffemodel")
    names = ("deploy.prototxt", "train.caffemodel")
    register(
        tmp_path,
        {"convert": "caffe", "weights": "train.caffemodel", "prototxt": "deploy.prototxt"},
        {
            "filename": "net.zip",
            "sources": [{"url": "net.zip"}],
            "archive": {"type": "zip", "members": [{"path": n, "filename": n} for n in names]},
        },
    )
    return binary


def test_a_name_is_fetched_converted_kept_and_loaded(
    published: Path, tmp_path: Path, home: Path
) -> None:
    with pytest.raises(UnverifiedError, match="--trust-on-first-use"):
        deeplab_zoo.load("ours")
    weights = deeplab_zoo.fetch("ours", trust_on_first_use=True)
    assert weights.read_bytes() == published.read_bytes()
    (tmp_path / "net.zip").unlink()
    model = deeplab_zoo.load("ours")
    assert not model.training
    assert model.numerics.name == "caffe-v2"
    deeplab_zoo.convert_caffe(tmp_path / "net.prototxt", published, tmp_path / "direct.safetensors")
    direct = deeplab_zoo.load(tmp_path / "direct.safetensors")
    for name, tensor in direct.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    (kept,) = (home / "converted" / "ours").iterdir()
    written = kept.stat().st_mtime_ns
    assert deeplab_zoo.fetch("ours", convert=True) == kept
    assert kept.stat().st_mtime_ns == written


def test_a_file_of_ours_needs_no_conversion(published: Path, tmp_path: Path, home: Path) -> None:
    out = tmp_path / "ours.safetensors"
    deeplab_zoo.convert_caffe(tmp_path / "net.prototxt", published, out)
    register(
        tmp_path,
        {"convert": "native", "weights": "ours.safetensors"},
        {"filename": "ours.safetensors", "sources": [{"url": "ours.safetensors"}]},
    )
    path = deeplab_zoo.fetch("ours", trust_on_first_use=True, convert=True)
    assert path == home / "files" / "ours" / "ours.safetensors"
    assert deeplab_zoo.load("ours").config == deeplab_zoo.load(out).config


@pytest.mark.parametrize(
    ("to", "layout", "convert", "filename"),
    [
        ("pth", "isht7", "legacy", "x.pth"),
        ("pth", "kazuto1011", "legacy", "x.pth"),
        ("pth", "advsemiseg", "legacy", "x.pth"),
        ("tf-v1", "canonical", "tf", "x.ckpt"),
    ],
)
def test_a_recipe_brings_every_layout_home(
    published: Path, tmp_path: Path, to: str, layout: str, convert: str, filename: str
) -> None:
    direct = tmp_path / "direct.safetensors"
    deeplab_zoo.convert_caffe(tmp_path / "net.prototxt", published, direct)
    deeplab_zoo.export(direct, tmp_path / filename, to=to, layout=layout, mixed_numerics=True)
    recipe = {"convert": convert, "weights": filename, "layout": layout if to == "pth" else ""}
    register(tmp_path, recipe, {"filename": filename, "sources": [{"url": filename}]})
    deeplab_zoo.fetch("ours", trust_on_first_use=True)
    found, expected = deeplab_zoo.load("ours").state_dict(), deeplab_zoo.load(direct).state_dict()
    assert {name for name in expected if not torch.equal(found[name], expected[name])} == set()


def test_a_start_for_training_gets_a_fresh_head(published: Path, tmp_path: Path) -> None:
    recipe = {"convert": "caffe", "weights": published.name, "reset_head": True, "num_classes": 7}
    register(tmp_path, recipe, {"filename": published.name, "sources": [{"url": published.name}]})
    deeplab_zoo.fetch("ours", trust_on_first_use=True)
    assert deeplab_zoo.load("ours").config.classes == 7


def test_a_path_that_exists_wins_and_an_unknown_name_is_guessed(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    deeplab_zoo.convert_caffe("net.prototxt", published, "x.safetensors")
    Path("x.safetensors").rename("ours")
    assert deeplab_zoo.load("ours").config.classes == 5
    with pytest.raises(UsageError, match="Did you mean 'deeplabv2-resnet101-voc'"):
        deeplab_zoo.load("deeplabv2-resnet-voc")
    for missing in ("missing.safetensors", "folder/name", Path("ours-too")):
        with pytest.raises(ZooError, match="no such file"):
            deeplab_zoo.load(missing)


def test_what_has_no_native_model_is_refused_before_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DEEPLAB_ZOO_REGISTRY")
    with pytest.raises(ZooError, match="no native model of vgg vgg16"):
        deeplab_zoo.load("vgg16-imagenet-caffe")


def test_dest_gets_copies(published: Path, tmp_path: Path, home: Path) -> None:
    path = deeplab_zoo.fetch("ours", trust_on_first_use=True, dest=tmp_path / "mine")
    assert path == tmp_path / "mine" / "train.caffemodel"
    assert {one.name for one in (tmp_path / "mine").iterdir()} == {
        "deploy.prototxt",
        "train.caffemodel",
    }
    path.write_bytes(b"changed")
    assert (home / "files" / "ours" / "train.caffemodel").read_bytes() == published.read_bytes()


@pytest.mark.usefixtures("published")
def test_dest_gets_the_converted_file_by_its_name(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    for _ in range(2):
        path = deeplab_zoo.fetch("ours", trust_on_first_use=True, convert=True, dest=out)
        assert path == out / "ours.safetensors"
    assert [one.name for one in out.iterdir()] == ["ours.safetensors"]
    assert deeplab_zoo.load(path).config.classes == 5


def test_weights_written_elsewhere_need_their_numerics_named(tmp_path: Path) -> None:
    config = DeepLabV2Config(3, (1, 1, 1, 1), 4, (2, 2, 2, 2))
    state = {name: torch.zeros(shape) for name, shape in parameters(config).items()}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(MismatchError, match="records no numerics profile.*numerics='caffe-v2'"):
        deeplab_zoo.load(tmp_path / "x.pth")
    assert deeplab_zoo.load(tmp_path / "x.pth", numerics="caffe-v2").config == config
    with pytest.raises(UsageError, match="numerics profile 'tf' is unknown"):
        deeplab_zoo.load(tmp_path / "x.pth", numerics="tf")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x02cos\nsystem\n(S'touch pwned'\ntR.", "cannot be read as a state dict"),
        (b"PK\x03\x04 not a zip", "cannot be read as a state dict"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "not a sound safetensors file"),
        (b"plain text", "is a text file, expected a .safetensors or .pth"),
    ],
)
def test_files_that_are_no_weights_are_refused_and_never_executed(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=complaint):
        deeplab_zoo.load(path)
    assert not (tmp_path / "pwned").exists()


# The checkout is the package, whatever its folder is called.
HUB = """
import sys, torch
model = torch.hub.load(sys.argv[1], "ours", source="local")
entries = torch.hub._import_module("hub", sys.argv[1] + "/hubconf.py")
names = dir(entries)
assert "deeplabv2-resnet101-voc" in names
assert "sbd" not in names and "vgg16-imagenet-caffe" not in names
assert model.config.classes == 5
assert model(torch.zeros(1, 3, 65, 97)).shape[1] == 5
import deeplab_zoo
assert deeplab_zoo.__file__.startswith(sys.argv[1]), deeplab_zoo.__file__
"""


@pytest.mark.usefixtures("published")
def test_torch_hub_loads_entries_by_name_from_the_checkout(tmp_path: Path) -> None:
    deeplab_zoo.fetch("ours", trust_on_first_use=True)
    found = subprocess.run(
        [sys.executable, "-c", HUB, str(ROOT)],
        check=False, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_a_foreign_file_is_told_what_converts_it(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    _, binary = make_net(tiny_config)
    with pytest.raises(FormatError, match="To convert it: `deeplab-zoo convert caffe`"):
        deeplab_zoo.load(binary)
    (tmp_path / "page.pth").write_text("<html>gone</html>")
    with pytest.raises(FormatError, match=r"page.pth: is a web page.* fetch it again.$"):
        deeplab_zoo.load(tmp_path / "page.pth")
