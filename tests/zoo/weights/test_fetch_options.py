"""What a caller of `fetch` asks for beside names: copies, mirrors, and the way by hand."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.proto.errors import (
    NetworkError,
    OfflineError,
    StorageError,
    UsageError,
)
from deeplab_zoo.zoo.weights.fetch import fetch

from .conftest import artifact, described, text_of


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With ``one`` and ``two``, whose files have the same name, and ``tree``, an archive."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pth").write_text(name)
    packed = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path, "one")
    known = [
        described(artifact(f"{name}/x.pth", body=name.encode()), name=name)
        for name in ("one", "two")
    ]
    whole = artifact(
        "x.zip", body=Path(packed).read_bytes(), filename="x.zip", archive={"type": "zip"}
    )
    path = tmp_path / "registry.yaml"
    path.write_text(text_of(*known, described(whole, name="tree")))
    monkeypatch.setattr("deeplab_zoo.zoo.weights.registry.SHIPPED", path)  # It takes a while.
    return path


def test_copies_replace_nothing_that_differs(tmp_path: Path, registry: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # What is the same may be there.
        assert fetch("one", registry=registry, dest=out) == out / "x.pth"
        assert fetch("tree", registry=registry, dest=out) == out / "x"
    with pytest.raises(UsageError, match=r"out/x\.pth: is there already, and something else"):
        fetch("two", registry=registry, dest=out)
    (out / "x" / "one" / "x.pth").write_text("mine")
    with pytest.raises(UsageError, match="out/x: is there already"):
        fetch("tree", registry=registry, dest=out)
    assert (out / "x.pth").read_text() == "one"
    assert sorted(one.name for one in out.iterdir()) == ["x", "x.pth"]


def test_a_process_that_was_quicker_with_a_copy_is_no_error(
    tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def quicker(source: Path, target: Path) -> Path:
        shutil.copytree(source, out / "x")
        return Path(shutil.copytree(source, target))

    monkeypatch.setattr("deeplab_zoo.zoo.weights.fetch.copytree", quicker)
    assert fetch("tree", registry=registry, dest=out) == out / "x"
    assert [one.name for one in out.iterdir()] == ["x"]


def test_trouble_with_the_copies_folder_is_not_put_down_to_the_cache(
    tmp_path: Path, registry: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file: no folder to write into") as caught:
        fetch("one", registry=registry, dest=tmp_path / "file")
    assert "DEEPLAB_ZOO_CACHE" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"timeout": float("nan")}, "timeout nan"),
        ({"timeout": 0.0}, "timeout 0"),
        ({"timeout": float("inf")}, "timeout inf"),
        ({"retries": -1}, "retries -1"),
        ({"mirrors": "/mnt/zoo"}, "mirror /mnt/zoo: expected an address"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    registry: Path, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        fetch("one", registry=registry, **wrong)


def test_the_way_by_hand_that_an_error_names_leads_there(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplab_zoo.zoo.weights.work.SHIPPED", registry)
    kept = (tmp_path / "one" / "x.pth").rename(tmp_path / "kept.pth")
    own = registry.rename(tmp_path / "my registry.yaml")
    registry.write_text(text_of(described(artifact("https://e.org/x"), name="shipped")))
    with pytest.raises(NetworkError) as caught:
        fetch("one", registry=own)
    words = shlex.split(str(caught.value).partition("then: ")[2])
    assert words[:3] == ["deeplab-zoo", "fetch", "one"]
    brought = fetch(words[2], registry=words[words.index("--registry") + 1], from_file=kept)
    assert brought.read_text() == "one"
    with pytest.raises(OfflineError, match="then: deeplab-zoo fetch shipped --from-file PATH"):
        fetch("shipped", offline=True)


def test_one_mirror_may_be_given_as_text(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "one").rename(tmp_path / "near" / "one")
    assert fetch("one", registry=registry, mirrors=(tmp_path / "near").as_uri()).exists()
