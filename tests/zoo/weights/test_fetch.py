import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.proto.errors import (
    IntegrityError,
    LicenceError,
    NetworkError,
    OfflineError,
    StorageError,
)
from deeplab_zoo.zoo.weights import sources, store
from deeplab_zoo.zoo.weights.download import Policy
from deeplab_zoo.zoo.weights.events import Event

from .conftest import BODY, artifact, described, digest
from .faulty_server import Fault, Site, serving

Fetching = Callable[..., tuple[Path, list[Event]]]


def kinds(events: list[Event]) -> list[str]:
    return [one.kind for one in events if one.kind != "progress"]


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


ONE_TRY: list[tuple[Fault, str]] = [
    (("status", 401), "HTTP 401"),
    (("status", 403), "HTTP 403"),
    (("status", 404), "HTTP 404"),
    (("status", 410), "HTTP 410"),
    (("page", ("text/html", b"<!DOCTYPE html><html>login")), "a web page"),
    (("page", ("application/octet-stream", b"\n <html>")), "a web page"),
    (("page", ("text/plain", b"version https://git-lfs.github.com/spec/v1\noid")), "git-LFS pointer"),
    (("page", ("application/json", b'{"error": "gone"}')), "a JSON error message"),
    (("page", ("application/xml", b"<?xml version='1.0'?><Error/>")), "an XML error message"),
    (("page", ("text/html", b"<html>Quota exceeded</html>")), "quota is exceeded"),
    ("gzip", "compresses"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "words"), ONE_TRY)
def test_what_will_not_pass_is_asked_once_and_the_mirror_is_next(
    site: Site, fetching: Fetching, fault: Fault, words: str
) -> None:
    site.faults = [fault]
    folder, events = fetching(described(artifact(site.url("x.pth"), site.url("x.pth?mirror"))))
    assert (folder / "x.pth").read_bytes() == BODY
    assert kinds(events) == ["source", "start", "done"]
    assert words in str(events[0].detail["reason"])


@pytest.mark.parametrize(("fault", "words"), ONE_TRY)
def test_all_sources_that_failed_are_listed_with_the_way_to_do_it_by_hand(
    site: Site, fetching: Fetching, fault: Fault, words: str
) -> None:
    site.faults = [fault, ("status", 404)]
    one = artifact(site.url("x.pth"), site.url("x.pth?mirror"), manual="https://example.org/page")
    with pytest.raises(NetworkError) as caught:
        fetching(described(one))
    assert caught.value.exit_code == 5
    for part in (
        words,
        "HTTP 404",
        "?mirror",
        "https://example.org/page",
        "--from-file",
        digest(BODY),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [("status", 429), ("status", 500), ("status", 502), ("status", 503), ("drop", 0.3), ("drop", 0.0),
     ("reset", 0.6), ("stall", 0.5), ("drip", 0.4), "short length", "long length", "truncated"],
)  # fmt: skip
def test_what_may_pass_is_retried_and_goes_on_where_it_was(
    site: Site, fetching: Fetching, fault: Fault
) -> None:
    site.faults = [fault]
    folder, events = fetching(described(artifact(site.url("x.pth"))))
    assert (folder / "x.pth").read_bytes() == BODY
    retries = [one for one in events if one.kind == "retry"]
    assert len(retries) == 1
    if len(site.asked) > 1 and (begun := site.asked[1][1].get("Range")):
        assert site.asked[1][1]["If-Range"] == '"one"'
        # A reset throws away what the other side had not read yet.
        assert site.sent < (1.7 if fault[0] == "reset" else 1.2) * len(BODY) or fault == "truncated"
        assert begun != "bytes=0-"


def test_what_never_passes_ends_after_the_retries(site: Site, fetching: Fetching) -> None:
    site.faults = [("status", 503)] * 20
    with pytest.raises(NetworkError, match="HTTP 503.*4 attempts"):
        fetching(described(artifact(site.url("x.pth"))), policy=Policy(3, backoff=0.001))
    assert len(site.asked) == 4


def test_nobody_listening_is_a_network_error(fetching: Fetching) -> None:
    with pytest.raises(NetworkError, match="NewConnectionError|ConnectionRefused"):
        fetching(described(artifact("http://127.0.0.1:9/x.pth")))


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("3600", 60.0), ("soon", None)],
)
def test_retry_after_is_honoured_up_to_a_limit(
    site: Site,
    fetching: Fetching,
    told: str,
    seconds: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deeplab_zoo.zoo.weights.events import Stop

    waited: list[float] = []

    class Impatient(Stop):
        def __init__(self) -> None:
            super().__init__()
            self.wait = lambda timeout=None: waited.append(timeout or 0) or False  # type: ignore[func-returns-value,assignment]

    monkeypatch.setattr("deeplab_zoo.zoo.weights.fetch.Stop", Impatient)
    site.faults = [("status", (429, {"Retry_After": told}))]
    fetching(described(artifact(site.url("x.pth"))), policy=Policy())
    assert len(waited) == 1
    if seconds is None:
        assert 0.5 <= waited[0] <= 1.5
    else:
        assert waited == [seconds]


def test_a_longer_body_is_refused_and_kept_apart(
    site: Site, fetching: Fetching, home: Path
) -> None:
    site.faults = ["appended"]
    with pytest.raises(IntegrityError, match="longer than the 300007 bytes") as caught:
        fetching(described(artifact(site.url("x.pth"))))
    assert caught.value.exit_code == 3
    assert len([*(home / "quarantine").glob("*/*")]) == 1
    assert not (home / "files").exists()


def test_wrong_bytes_are_reported_in_full_and_the_next_mirror_is_asked(
    site: Site, fetching: Fetching, home: Path
) -> None:
    site.faults = ["flipped"]
    folder, events = fetching(described(artifact(site.url("x.pth"), site.url("x.pth?mirror"))))
    assert (folder / "x.pth").read_bytes() == BODY
    report = str(next(one for one in events if one.kind == "mismatch").detail["reason"])
    for part in (
        "sha256",
        digest(BODY),
        "300007 bytes",
        site.url("x.pth"),
        "octet-stream",
        "quarantine",
    ):
        assert part in report
    site.faults = ["flipped"]
    (home / "files" / "mine" / "x.pth").unlink()
    with pytest.raises(IntegrityError, match=digest(BODY)):
        fetching(described(artifact(site.url("x.pth"))))
    assert not (home / "files" / "mine" / "x.pth").exists()


def test_pieces_that_do_not_fit_are_asked_for_once_more_whole(
    site: Site, fetching: Fetching
) -> None:
    wrong = bytes(len(BODY))
    site.files["x.pth"] = wrong
    site.faults = [("drop", 0.5), ("status", 404)]
    one = described(artifact(site.url("x.pth")))
    with pytest.raises(NetworkError):
        fetching(one)
    site.files["x.pth"] = BODY  # The rest will be of another file than the beginning.
    folder, events = fetching(one)
    assert (folder / "x.pth").read_bytes() == BODY
    assert kinds(events) == ["start", "mismatch", "start", "done"]
    assert [one.detail["offset"] > 0 for one in events if one.kind == "start"] == [True, False]


@pytest.mark.parametrize("fault", ["wrong range", "no range"])
def test_a_server_that_does_not_keep_to_ranges_gets_a_fresh_start(
    site: Site, fetching: Fetching, fault: str
) -> None:
    site.faults = [("drop", 0.5), fault]
    folder, _ = fetching(described(artifact(site.url("x.pth"))))
    assert (folder / "x.pth").read_bytes() == BODY


def test_a_file_that_changes_on_the_server_is_begun_afresh(site: Site, fetching: Fetching) -> None:
    new = BODY[::-1]
    known = {"digests": {"sha256": digest(new)},
             "evidence": [{"grade": "A", "covers": ["sha256"], "where": "here"}]}  # fmt: skip
    one = described(artifact(site.url("x.pth"), body=None, **known))
    site.faults = [("drop", 0.5), ("status", 404)]
    with pytest.raises(NetworkError):
        fetching(one)
    site.files["x.pth"], site.etag = new, '"two"'
    folder, _ = fetching(one)
    assert (folder / "x.pth").read_bytes() == new
    assert site.asked[2][1]["If-Range"] == '"one"'


def test_a_full_disk_is_told_before_the_start(
    site: Site, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1000))
    with pytest.raises(StorageError, match="1,000 bytes are free, x.pth needs 300,007") as caught:
        fetching(described(artifact(site.url("x.pth"))))
    assert caught.value.exit_code == 6
    assert site.asked == []


def test_a_disk_that_fills_up_keeps_what_has_come(
    site: Site, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from deeplab_zoo.zoo.weights import download

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


def test_known_bytes_need_no_length(site: Site, fetching: Fetching) -> None:
    site.faults = ["no length"]
    folder, _ = fetching(described(artifact(site.url("x.pth"))))
    assert (folder / "x.pth").read_bytes() == BODY


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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_is_trusted_if_a_variable_names_its_authority(
    certificate: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with serving(certificate) as safe:
        safe.files["x.pth"] = BODY
        one = described(artifact(safe.url("x.pth"), body=None))
        with pytest.raises(NetworkError, match="REQUESTS_CA_BUNDLE or SSL_CERT_FILE"):
            fetching(one, trust=True)
        monkeypatch.setenv(variable, str(certificate))
        folder, events = fetching(one, trust=True)
        assert (folder / "x.pth").read_bytes() == BODY
        assert events[-1].detail["words"] == "UNVERIFIED, recorded on first use"


def test_redirects_from_https_to_http_are_for_pinned_files_only(
    site: Site, certificate: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(certificate) as safe:
        safe.faults = [("redirect", site.url("x.pth"))] * 2
        with pytest.raises(NetworkError, match="from https to plain http"):
            fetching(described(artifact(safe.url("x.pth"), body=None)), trust=True)
        folder, _ = fetching(described(artifact(safe.url("x.pth"))))
        assert (folder / "x.pth").read_bytes() == BODY


def test_an_unpinned_file_goes_on_where_it_was_while_the_server_has_the_same(
    certificate: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(certificate) as safe:
        safe.files["x.pth"] = BODY
        safe.faults = [("drop", 0.5), "none", "no length"]
        one = described(artifact(safe.url("x.pth"), body=None))
        folder, _ = fetching(one, trust=True)
        assert (folder / "x.pth").read_bytes() == BODY
        assert safe.asked[1][1]["If-Range"] == '"one"'
        with pytest.raises(NetworkError, match="does not say how long"):
            fetching({**one, "name": "other"}, trust=True)


def test_a_proxy_is_asked_if_the_environment_names_one(
    site: Site, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.base)
    site.files["http://nowhere.invalid/x.pth"] = BODY
    folder, _ = fetching(described(artifact("http://nowhere.invalid/x.pth")))
    assert (folder / "x.pth").read_bytes() == BODY


def test_plain_http_needs_a_digest(site: Site, fetching: Fetching) -> None:
    with pytest.raises(NetworkError, match="plain http"):
        fetching(described(artifact(site.url("x.pth"), body=None)), trust=True)
    assert site.asked == []


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


def test_a_mirror_given_by_hand_comes_first_and_dead_sources_last(
    site: Site, fetching: Fetching
) -> None:
    site.files["zoo/mine/x.pth"] = BODY
    one = artifact(site.url("x.pth?alive"))
    one["sources"].insert(0, {"url": site.url("x.pth?dead"), "dead": "2021"})
    site.faults = [("status", 404), ("status", 404)]
    fetching(described(one), mirrors=(site.url("zoo/"),))
    assert [path for path, _ in site.asked] == ["/zoo/mine/x.pth", "/x.pth?alive", "/x.pth?dead"]


def test_a_mirror_goes_on_with_what_another_began(site: Site, fetching: Fetching) -> None:
    site.faults = [("drop", 0.5), ("status", 404)]
    folder, _ = fetching(described(artifact(site.url("x.pth"), site.url("x.pth?mirror"))))
    assert (folder / "x.pth").read_bytes() == BODY
    assert "If-Range" not in site.asked[2][1]
    assert "Range" in site.asked[2][1]


def test_extra_roots_are_looked_into_first_and_not_written(
    site: Site, fetching: Fetching, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = described(artifact(site.url("x.pth")))
    fetching(one)
    home.rename(tmp_path / "shared-cache")
    monkeypatch.setenv("DEEPLAB_ZOO_EXTRA_ROOTS", str(tmp_path / "shared-cache"))
    folder, events = fetching(one, offline=True)
    assert folder == tmp_path / "shared-cache" / "files" / "mine"
    assert kinds(events) == ["cached"]
    assert not home.exists()


def test_google_drives_confirm_page_is_passed(
    site: Site, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (
        b'<!DOCTYPE html><form id="download-form" action="/download" method="get">'
        b'<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t">'
        b'<input type="hidden" name="uuid" value="1-2"></form>'
    )
    monkeypatch.setattr(sources, "DRIVE", site.url("download"))
    site.files["download"] = BODY
    site.faults = [("page", ("text/html; charset=utf-8", page))]
    url = "https://drive.google.com/uc?id=abc&resourcekey=0-k"
    folder, _ = fetching(described(artifact(url)))
    assert (folder / "x.pth").read_bytes() == BODY
    assert [path for path, _ in site.asked] == [
        "/download?id=abc&resourcekey=0-k&export=download",
        "/download?id=abc&confirm=t&uuid=1-2",
    ]


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


def test_redirects_are_followed(site: Site, fetching: Fetching) -> None:
    site.faults = [("redirect", None), ("redirect", None)]
    folder, _ = fetching(described(artifact(site.url("x.pth"))))
    assert (folder / "x.pth").read_bytes() == BODY


def test_redirects_without_end_are_a_network_error(site: Site, fetching: Fetching) -> None:
    site.faults = [("redirect", None)] * 100
    with pytest.raises(NetworkError, match="TooManyRedirects"):
        fetching(described(artifact(site.url("x.pth"))))
