"""What may go from the store: each file once, and what that frees is told beforehand."""

from pathlib import Path

import pytest

from deeplab_zoo.zoo.weights import store
from deeplab_zoo.zoo.weights.prune import entry_files, freed, leftovers, remove
from deeplab_zoo.zoo.weights.staging import claim

from .conftest import BODY, Fetching, artifact, described, entry_of


@pytest.fixture
def fetched(tmp_path: Path, fetching: Fetching) -> list[Path]:
    """What the store holds of one entry."""
    (tmp_path / "x.pth").write_bytes(BODY)
    one = described(artifact((tmp_path / "x.pth").as_uri()))
    fetching(one)
    return list(entry_files(entry_of(one)))


def test_what_would_be_freed_is_what_is_freed(fetched: list[Path], home: Path) -> None:
    stamp = (home / "stamps" / "mine" / "x.pth.json").stat().st_size
    assert freed(fetched) == len(BODY) + stamp
    assert freed(fetched[:1]) == 0  # The blob is the same bytes.
    for path in (*fetched, *fetched):  # As another process would, too.
        remove(path)
    assert list(entry_files(entry_of(described(artifact("https://e.org/x"))))) == []
    assert list(leftovers()) == []
    assert freed(fetched) == 0


def test_bytes_on_their_way_to_a_name_are_no_leftovers(
    tmp_path: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    link = store.link

    def pruned_meanwhile(file: Path, path: Path) -> None:
        seen.extend(leftovers())
        link(file, path)
        seen.extend(leftovers())

    monkeypatch.setattr(store, "link", pruned_meanwhile)
    (tmp_path / "x.pth").write_bytes(BODY)
    folder, _ = fetching(described(artifact((tmp_path / "x.pth").as_uri())))
    assert (folder / "x.pth").read_bytes() == BODY
    assert seen == []


def test_two_that_prune_at_once_do_not_stumble(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = home / "staging"
    partial = claim(staging, "key")
    partial.path.rename(staging / "key.id.partial.otherone.1")
    glob = Path.glob

    def gone_when_looked_at(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        for path in found:
            remove(path)
        return found

    monkeypatch.setattr(Path, "glob", gone_when_looked_at)
    for path in leftovers():
        remove(path)
