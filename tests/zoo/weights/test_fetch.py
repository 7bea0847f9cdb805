"""An entry becomes files in the store: what is asked for, what is there already, what is refused."""

import errno
import os
import shutil
import socket
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.proto.errors import (
    IntegrityError,
    LicenceError,
    NetworkError,
    OfflineError,
    StorageError,
    UsageError,
)
from deeplab_zoo.zoo.weights import download, store
from deeplab_zoo.zoo.weights.download import Policy
from deeplab_zoo.zoo.weights.lock import lock_path

from .conftest import BODY, Fetching, artifact, described, digest, kinds
from .faulty_server import Site


def test_a_pinned_file_is_fetched_verified_and_found_again(
    site: Site, fetching: Fetching, home: Path
) -> None:
    one = described(artifact(site.url("x.pth")))
    folder, events = fetching(one)
    assert (folder / "x.pth").read_bytes() == BODY
    assert events[-1].detail["words"] == "verified sha256"
    assert (home / "blobs" / "sha256" / digest(BODY)[:2] / digest(BODY)).samefile(folder / "x.pth")
    _, events = fetching(one)
    assert kinds(events) == ["cached"]
    assert len(site.asked) == 1
    assert site.asked[0][1]["User-Agent"].startswith("deeplab-zoo/")
    assert site.asked[0][1]["Accept-Encoding"] == "identity"
    assert not [*(home / "staging").iterdir()]


def test_a_full_disk_is_told_before_the_start(
    site: Site, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1000))
    with pytest.raises(StorageError, match="1,000 bytes are free, x.pth needs 300,007") as caught:
        fetching(described(artifact(site.url("x.pth"))))
    assert caught.value.exit_code == 6
    assert site.asked == []


def test_a_disk_that_fills_up_keeps_what_has_come(
    site: Site, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = download._Transfer._add
    filled = [True]

    def add(self: Any, block: bytes) -> None:
        original(self, block)
        if filled and self.count > 100_000:
            filled.clear()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download._Transfer, "_add", add)
    with pytest.raises(StorageError, match="the disk is full"):
        fetching(described(artifact(site.url("x.pth"))))
    assert len(site.asked) == 1
    fetching(described(artifact(site.url("x.pth"))))
    assert "Range" in site.asked[1][1]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_named_with_its_variable(
    site: Site, fetching: Fetching, home: Path
) -> None:
    home.mkdir()
    home.chmod(0o500)
    with pytest.raises(StorageError, match="DEEPLAB_ZOO_CACHE"):
        fetching(described(artifact(site.url("x.pth"))))


def test_a_store_that_cannot_be_made_is_named_with_its_variable(
    site: Site, fetching: Fetching, home: Path
) -> None:
    home.write_text("a file, where the folder should be")
    with pytest.raises(StorageError, match=f"{home}.*DEEPLAB_ZOO_CACHE") as caught:
        fetching(described(artifact(site.url("x.pth"))))
    assert caught.value.exit_code == 6


def test_offline_opens_no_connection_and_says_what_is_missing(
    site: Site, fetching: Fetching
) -> None:
    one = described(artifact(site.url("x.pth")))
    with pytest.raises(OfflineError) as caught:
        fetching(one, offline=True)
    assert caught.value.exit_code == 7
    for part in (
        site.url("x.pth"),
        "300007 bytes",
        digest(BODY),
        "--from-file",
        "files/mine/x.pth",
    ):
        assert part in str(caught.value)
    assert site.asked == []
    fetching(one)
    assert kinds(fetching(one, offline=True)[1]) == ["cached"]


def test_offline_still_takes_files_from_a_folder(tmp_path: Path, fetching: Fetching) -> None:
    (tmp_path / "x.pth").write_bytes(BODY)
    one = artifact("http://127.0.0.1:9/x.pth", (tmp_path / "x.pth").as_uri())
    folder, events = fetching(described(one), offline=True)
    assert (folder / "x.pth").read_bytes() == BODY
    assert kinds(events) == ["start", "done"]


def test_a_file_brought_by_hand_is_checked_like_any_other(
    tmp_path: Path, fetching: Fetching
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(BODY)
    bad.write_bytes(BODY[:-1] + b"!")
    one = described(artifact())
    with pytest.raises(IntegrityError, match=digest(BODY)):
        fetching(one, from_file=bad, offline=True)
    folder, _ = fetching(one, from_file=good, offline=True)
    assert (folder / "x.pth").read_bytes() == BODY
    assert good.read_bytes() == BODY
    with pytest.raises(IntegrityError, match=digest(BODY)):  # Though the store has one.
        fetching(one, from_file=bad)
    assert kinds(fetching(one)[1]) == ["cached"]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "is empty"), (b"\n<!DOCTYPE html><title>Google Drive - Virus scan", "a web page instead"),
     (None, "is no file")],
)  # fmt: skip
def test_what_cannot_be_weights_is_not_taken_on_trust(
    tmp_path: Path, fetching: Fetching, body: bytes | None, words: str
) -> None:
    there = tmp_path / "saved"
    if body is None:
        os.mkfifo(there)  # Nobody writes into it.
    else:
        there.write_bytes(body)
    with pytest.raises(NetworkError, match=words):
        fetching(described(artifact(there.as_uri(), body=None)), trust=True)
    assert not lock_path().exists()


def test_a_file_to_bring_that_is_not_there_is_no_trouble_with_the_network(
    tmp_path: Path, fetching: Fetching
) -> None:
    with pytest.raises(UsageError, match=r"none: no such file, expected x\.pth"):
        fetching(described(artifact()), from_file=tmp_path / "none")
    with pytest.raises(UsageError, match=r"x\.pth: no such file, expected x\.pth"):
        fetching(described(artifact()), from_file=tmp_path)


def test_of_several_files_those_that_are_missing_may_be_brought(
    site: Site, fetching: Fetching, tmp_path: Path
) -> None:
    one = described(artifact(site.url("x.pth")), artifact(site.url("y"), filename="y.pth"))
    with pytest.raises(NetworkError, match="then: deeplab-zoo fetch mine .*--from-file FOLDER"):
        fetching(one)
    fetching(described(one["artifacts"][0]))
    (tmp_path / "y.pth").write_bytes(BODY)
    folder, _ = fetching(one, from_file=tmp_path, offline=True)
    assert (folder / "y.pth").read_bytes() == BODY


def test_a_licence_that_asks_is_refused_until_it_is_accepted(
    site: Site, fetching: Fetching
) -> None:
    terms = {"spdx": "LicenseRef-x", "url": "https://example.org/l", "accept_required": True}
    one = described(artifact(site.url("x.pth")), license=terms)
    with pytest.raises(LicenceError, match="https://example.org/l") as caught:
        fetching(one)
    assert caught.value.exit_code == 8
    assert site.asked == []
    fetching(one, accept_license=True)


def test_a_changed_file_in_the_store_is_put_aside_and_fetched_again(
    site: Site, fetching: Fetching, home: Path
) -> None:
    one = described(artifact(site.url("x.pth")))
    folder, _ = fetching(one)
    (folder / "x.pth").write_bytes(b"something else")
    folder, events = fetching(one)
    assert (folder / "x.pth").read_bytes() == BODY
    assert kinds(events)[0] == "note"
    assert "has changed since it was fetched" in str(events[0].detail["text"])
    assert [one.read_bytes() for one in (home / "quarantine").glob("*/*")] == [b"something else"]


def test_a_touched_file_is_hashed_again_and_stays(
    site: Site, fetching: Fetching, home: Path
) -> None:
    one = described(artifact(site.url("x.pth")))
    folder, _ = fetching(one)
    os.utime(folder / "x.pth", (1, 1))
    assert kinds(fetching(one)[1]) == ["cached"]
    assert store.find(home, "mine", "x.pth") is not None


def test_extra_roots_are_looked_into_first_and_not_written(
    site: Site, fetching: Fetching, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = described(artifact(site.url("x.pth")))
    fetching(one)
    shared = home.rename(tmp_path / "shared-cache")
    shutil.rmtree(shared / "guards")
    lock_path().unlink()  # It will be written anew.
    os.utime(shared / "files" / "mine" / "x.pth")  # It will be hashed again.
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*")}
    monkeypatch.setenv("DEEPLAB_ZOO_EXTRA_ROOTS", str(tmp_path / "shared-cache"))
    folder, events = fetching(one, offline=True)
    assert folder == tmp_path / "shared-cache" / "files" / "mine"
    assert kinds(events) == ["cached"]
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*")} == before
    assert not (home / "files").exists()


def test_several_files_come_at_once_and_an_error_in_one_ends_all(
    site: Site, fetching: Fetching
) -> None:
    site.files |= {f"{i}.bin": BODY[i:] for i in range(3)}
    parts = [artifact(site.url(f"{i}.bin"), body=BODY[i:], filename=f"{i}.bin") for i in range(3)]
    folder, _ = fetching(described(*parts))
    assert [(folder / f"{i}.bin").read_bytes() for i in range(3)] == [BODY[i:] for i in range(3)]
    del site.files["1.bin"]
    (folder / "1.bin").unlink()
    with pytest.raises(NetworkError, match="HTTP 404"):
        fetching(described(*parts))


def test_an_error_in_one_file_is_told_while_another_comes(
    site: Site, fetching: Fetching, tmp_path: Path
) -> None:
    site.pace = 0.2  # Ten seconds for the first, unless it is ended.
    site.files["slow"] = bytes(10 << 16)
    files = [
        artifact(site.url("slow"), body=site.files["slow"], filename="a"),
        artifact((tmp_path / "none").as_uri(), filename="b"),
    ]
    with pytest.raises(NetworkError, match="none: cannot be read"):
        fetching(described(*files))
    assert site.sent < len(site.files["slow"])


def test_a_server_that_says_nothing_does_not_hold_up_the_end(
    fetching: Fetching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplab_zoo.zoo.weights.fetch.GRACE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        files = [
            artifact(f"http://127.0.0.1:{silent.getsockname()[1]}/a", filename="a"),
            artifact((tmp_path / "none").as_uri(), filename="b"),
        ]
        begun = time.monotonic()
        with pytest.raises(NetworkError, match="none: cannot be read"):
            fetching(described(*files), policy=Policy(retries=0, timeout=20))
        assert time.monotonic() - begun < 10
