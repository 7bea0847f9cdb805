import json
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.proto.errors import (
    FormatError,
    IntegrityError,
    StorageError,
    UnverifiedError,
    ZooError,
)
from deeplab_zoo.zoo.weights import store
from deeplab_zoo.zoo.weights.lock import lock_path, read_lock
from deeplab_zoo.zoo.weights.registry import load_registry
from deeplab_zoo.zoo.weights.status import is_cached, state_of
from deeplab_zoo.zoo.weights.verify import verify_entry

from .conftest import BODY, Fetching, artifact, described, digest, entry_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.pth"
    path.write_bytes(BODY)
    return path


def known(source: Path, **claim: Any) -> dict[str, Any]:
    covers = [*claim.get("digests", {}), *(["prefix"] if "prefix" in claim else [])]
    evidence = [{"grade": "A", "covers": covers, "where": "the test"}] if covers else []
    return described(artifact(source.as_uri(), body=None, evidence=evidence, **claim))


PREFIX = {"prefix": {"algorithm": "sha256", "hex": digest(BODY)[:8]}}
HINT = {"prefix": {"algorithm": "sha256", "hex": digest(BODY)[:7]}}
CLAIMS = [
    ({"digests": {"sha384": digest(BODY, "sha384")}}, "pinned", "verified sha384"),
    ({"digests": {"sha256": digest(BODY)}}, "pinned", "verified sha256"),
    ({"digests": {"sha1": digest(BODY, "sha1")}}, "weak", "matches sha1; sha256 locked"),
    ({"digests": {"md5": digest(BODY, "md5")}}, "weak", "matches md5; sha256 locked"),
    (PREFIX, "prefix", "matches an 8-hex prefix only (32 bits); sha256 locked"),
    (HINT, "unverified", "UNVERIFIED, recorded on first use"),
    ({}, "unverified", "UNVERIFIED, recorded on first use"),
]


@pytest.mark.parametrize(("claim", "state", "words"), CLAIMS)
def test_the_state_follows_from_what_is_known_and_only_strong_digests_verify(
    source: Path, fetching: Fetching, claim: dict[str, Any], state: str, words: str
) -> None:
    one = known(source, **claim)
    assert entry_of(one).state == state
    _, events = fetching(one, trust=True)
    assert events[-1].detail["words"] == words
    assert ("verified" in words) == (state == "pinned")
    record = read_lock(lock_path())["mine/x.pth"]
    assert (record.sha256, record.size, record.state_at_lock) == (digest(BODY), len(BODY), state)
    assert record.url == source.as_uri()
    assert record.fetched_at
    _, events = fetching(one)
    if state != "pinned":
        assert events[-1].detail["words"] == f"matches the lock of {record.fetched_at}"
        assert state_of(entry_of(one), read_lock(lock_path())) == "locked"


@pytest.mark.parametrize("claim", [row[0] for row in CLAIMS[:5]])
def test_other_bytes_than_any_digest_says_are_an_error(
    source: Path, fetching: Fetching, claim: dict[str, Any], home: Path
) -> None:
    source.write_bytes(BODY[:-1] + b"?")
    with pytest.raises(IntegrityError, match="expected"):
        fetching(known(source, **claim), trust=True)
    assert not (home / "files").exists()
    assert read_lock(lock_path()) == {}


def test_unverified_is_refused_without_trust(source: Path, fetching: Fetching, home: Path) -> None:
    with pytest.raises(UnverifiedError, match="--trust-on-first-use") as caught:
        fetching(known(source))
    assert caught.value.exit_code == 4
    assert not (home / "files").exists()


def test_what_is_in_the_store_without_a_lock_needs_trust_again(
    source: Path, fetching: Fetching
) -> None:
    fetching(known(source), trust=True)
    lock_path().unlink()
    with pytest.raises(UnverifiedError):
        fetching(known(source))
    _, events = fetching(known(source), trust=True)
    assert [one.kind for one in events] == ["cached"]
    assert "mine/x.pth" in read_lock(lock_path())


def test_bytes_that_differ_from_the_lock_are_as_wrong_as_from_the_registry(
    source: Path, fetching: Fetching, home: Path
) -> None:
    fetching(known(source), trust=True)
    source.write_bytes(BODY[::-1])
    (home / "files" / "mine" / "x.pth").unlink()
    with pytest.raises(IntegrityError, match="as locked on") as caught:
        fetching(known(source), trust=True)
    assert caught.value.exit_code == 3


def test_locked_takes_nothing_that_the_lock_has_not(source: Path, fetching: Fetching) -> None:
    pinned = known(source, digests={"sha256": digest(BODY)})
    with pytest.raises(UnverifiedError, match="--locked"):
        fetching(pinned, locked=True)
    fetching(pinned)
    fetching(pinned, locked=True)


def test_a_lock_does_not_override_the_registry(source: Path, fetching: Fetching) -> None:
    fetching(known(source), trust=True)
    with pytest.raises(IntegrityError, match="expected 000"):
        fetching(known(source, digests={"sha256": "0" * 64}))


def test_what_is_locked_stays_and_others_are_added(source: Path, fetching: Fetching) -> None:
    fetching(known(source), trust=True)
    first = read_lock(lock_path())["mine/x.pth"]
    fetching({**known(source), "name": "other"}, trust=True)
    records = read_lock(lock_path())
    assert records["mine/x.pth"] == first
    assert set(records) == {"mine/x.pth", "other/x.pth"}


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", '{"version": 9, "files": {}}', '{"version": 1}', "\udcff"]
)
def test_a_damaged_lock_is_an_error_not_an_empty_one(
    source: Path, fetching: Fetching, text: str
) -> None:
    lock_path().write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(FormatError, match=r"deeplab-zoo\.lock"):
        fetching(known(source), trust=True)


def test_a_lock_that_cannot_be_written_is_named_with_its_variable(
    source: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPLAB_ZOO_LOCK", str(source / "x.lock"))  # Below a file.
    with pytest.raises(StorageError, match="no folder to write into.*DEEPLAB_ZOO_LOCK"):
        fetching(known(source), trust=True)


def test_a_link_to_a_lock_stays_one(source: Path, fetching: Fetching, tmp_path: Path) -> None:
    (tmp_path / "theirs.lock").touch()
    lock_path().symlink_to("theirs.lock")
    fetching(known(source), trust=True)
    assert lock_path().is_symlink()
    assert set(read_lock(tmp_path / "theirs.lock")) == {"mine/x.pth"}


def test_the_lock_lies_in_the_working_folder_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEEPLAB_ZOO_LOCK")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)
    assert lock_path() == tmp_path / "settings" / "deeplab-zoo" / "deeplab-zoo.lock"
    (tmp_path / "deeplab-zoo.lock").touch()
    assert lock_path() == tmp_path / "deeplab-zoo.lock"
    assert read_lock(lock_path()) == {}


def test_a_tilde_in_a_variable_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A shell expands it; a unit file, a Dockerfile and quotes do not.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CACHE", "EXTRA_ROOTS", "LOCK", "REGISTRY"):
        monkeypatch.setenv(f"DEEPLAB_ZOO_{name}", "~/mine")
    assert store.cache_folder() == lock_path() == tmp_path / "mine"
    assert store.extra_roots() == (tmp_path / "mine",)
    with pytest.raises(ZooError, match=f"{tmp_path}/mine: no such registry file"):
        load_registry()


def test_verify_hashes_again_and_puts_aside_what_changed(
    source: Path, fetching: Fetching, home: Path
) -> None:
    one = known(source, digests={"sha256": digest(BODY)})
    folder, _ = fetching(one)
    assert [row.words for row in verify_entry(entry_of(one))] == ["verified sha256"]
    stamp = store.find(home, "mine", "x.pth")
    (folder / "x.pth").write_bytes(BODY[:-1] + b"?")
    assert stamp is not None
    store.restamp(home, "mine", stamp)  # A change that size, time and inode do not show.
    assert is_cached(entry_of(one))
    (row,) = verify_entry(entry_of(one))
    assert row.state == "mismatch"
    assert not (folder / "x.pth").exists()


def test_verify_looks_into_shared_stores_and_leaves_them_alone(
    source: Path, fetching: Fetching, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = known(source, digests={"sha256": digest(BODY)})
    fetching(one)
    shared = home.rename(tmp_path / "shared")
    monkeypatch.setenv("DEEPLAB_ZOO_EXTRA_ROOTS", str(shared))
    assert [row.words for row in verify_entry(entry_of(one))] == ["verified sha256"]
    (shared / "files" / "mine" / "x.pth").write_bytes(BODY[:-1] + b"?")
    (row,) = verify_entry(entry_of(one))
    assert row.state == "mismatch"
    assert str(shared) in row.words
    assert (shared / "files" / "mine" / "x.pth").exists()


@pytest.mark.parametrize("damage", [{"filename": 3}, {"digests": None}, {"digests": {}}])
def test_a_damaged_stamp_is_no_stamp(
    source: Path, fetching: Fetching, home: Path, damage: dict[str, object]
) -> None:
    one = known(source, digests={"sha256": digest(BODY)})
    fetching(one)
    stamp = home / "stamps" / "mine" / "x.pth.json"
    whole = {} if "filename" in damage else json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**whole, **damage}))
    assert not is_cached(entry_of(one))
    assert [event.kind for event in fetching(one)[1]][-1] == "done"
