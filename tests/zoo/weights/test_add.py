from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import FormatError, UsageError, ZooError
from deeplab_zoo.zoo.weights.add import add, described, measure
from deeplab_zoo.zoo.weights.fetch import fetch
from deeplab_zoo.zoo.weights.lint import problems
from deeplab_zoo.zoo.weights.parse import read_entries

from .conftest import BODY, digest

More = Callable[..., dict[str, object]]


def fields(
    what: str, registry: Path, name: str = "ours", same_as: str | None = None
) -> dict[str, object]:
    place, size, found, seen = measure(what, registry)
    return described(
        name, place, size, found, seen=seen, grade="A", kind="dataset", description="d",
        license={"spdx": "MIT"}, homepage="https://example.org", same_as=same_as,
    )  # fmt: skip


def test_a_folder_with_a_registry_is_a_zoo_that_can_move(tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    (zoo / "files").mkdir(parents=True)
    (zoo / "files" / "ours.bin").write_bytes(BODY)
    entry = add(
        zoo / "registry.yaml", fields(str(zoo / "files" / "ours.bin"), zoo / "registry.yaml")
    )
    assert entry.artifacts[0].sources[0].url == "files/ours.bin"
    assert entry.artifacts[0].claim.digests == {"sha256": digest(BODY)}
    assert entry.state == "pinned"
    moved = zoo.rename(tmp_path / "moved")
    path = fetch("ours", registry=[moved / "registry.yaml"])
    assert path.read_bytes() == BODY


def test_what_stands_in_the_file_stays_as_it_is_written(tmp_path: Path) -> None:
    registry = tmp_path / "registry.yaml"
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(file.name.encode())
    add(registry, fields(str(files[0]), registry, "a"))
    text = "# ours\n" + registry.read_text().replace("description: d", "description: 'd'  # why")
    registry.write_text(text)
    add(registry, fields(str(files[1]), registry, "b"))
    assert registry.read_text().startswith(text)
    assert [entry.name for entry in read_entries(registry)] == ["a", "b"]
    assert problems(read_entries(registry)) == []


def test_a_taken_name_and_an_unsound_entry_leave_the_file_alone(tmp_path: Path) -> None:
    registry = tmp_path / "registry.yaml"
    (tmp_path / "a").write_bytes(b"a")
    add(registry, fields(str(tmp_path / "a"), registry, "a"))
    before = registry.read_bytes()
    for name in ("a", "sbd", "resnet101COCO"):
        with pytest.raises((UsageError, FormatError), match=name):
            add(registry, fields(str(tmp_path / "a"), registry, name))
    with pytest.raises(UsageError, match="'NOT ALLOWED'"):
        add(registry, fields(str(tmp_path / "a"), registry, "NOT ALLOWED"))
    assert registry.read_bytes() == before


def test_a_registry_that_is_not_a_block_is_not_guessed_at(tmp_path: Path) -> None:
    registry = tmp_path / "registry.yaml"
    (tmp_path / "a").write_bytes(b"a")
    registry.write_text("entries: []\nschema_version: 1\n")
    with pytest.raises(FormatError):
        add(registry, fields(str(tmp_path / "a"), registry))
    assert registry.read_text() == "entries: []\nschema_version: 1\n"
    with pytest.raises(ZooError, match="no such file"):
        measure(str(tmp_path / "none"), registry)


def test_the_same_bytes_again_are_declared(tmp_path: Path) -> None:
    registry = tmp_path / "registry.yaml"
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(BODY)
    add(registry, fields(str(tmp_path / "a"), registry, "a"))
    with pytest.raises(UsageError, match="declare same_as"):
        add(registry, fields(str(tmp_path / "b"), registry, "b"))
    entry = add(registry, fields(str(tmp_path / "b"), registry, "b", same_as="a"))
    assert entry.artifacts[0].same_as == "a"


def test_entries_added_at_once_are_all_there(tmp_path: Path) -> None:
    registry, names = tmp_path / "registry.yaml", ["a", "b", "c"]
    for name in names:
        (tmp_path / name).write_text(name)
    with ThreadPoolExecutor(len(names)) as pool:
        list(
            pool.map(
                lambda name: add(registry, fields(str(tmp_path / name), registry, name)), names
            )
        )
    assert sorted(entry.name for entry in read_entries(registry)) == names


def test_a_path_beside_the_registry_is_no_address(tmp_path: Path) -> None:
    registry, folder = tmp_path / "registry.yaml", tmp_path / "a:b"
    folder.mkdir()
    (folder / "ü #1%41.bin").write_bytes(BODY)
    entry = add(registry, fields(str(folder / "ü #1%41.bin"), registry))
    assert entry.artifacts[0].filename == "ü #1%41.bin"
    assert fetch("ours", registry=registry).read_bytes() == BODY


@pytest.mark.parametrize("there", [b"\xff", None])
def test_what_is_no_registry_is_not_added_to(tmp_path: Path, there: bytes | None) -> None:
    (tmp_path / "a").write_bytes(b"a")
    registry = tmp_path / "registry.yaml"
    registry.mkdir() if there is None else registry.write_bytes(there)
    with pytest.raises(ZooError, match=r"registry\.yaml: .*(UTF-8|directory)"):
        add(registry, fields(str(tmp_path / "a"), registry))


def test_an_address_is_downloaded_to_be_measured(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(BODY)
    place, size, found, seen = measure((tmp_path / "a.bin").as_uri(), tmp_path / "r.yaml")
    assert (place, size, found) == ((tmp_path / "a.bin").as_uri(), len(BODY), digest(BODY))
    assert seen.startswith("one download by deeplab-zoo")
