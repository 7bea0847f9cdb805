"""What servers do wrong: asked again, gone on with, or left for the next mirror."""

from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import IntegrityError, NetworkError
from deeplab_zoo.zoo.weights.download import Policy
from deeplab_zoo.zoo.weights.events import Stop

from .conftest import BODY, Fetching, artifact, described, digest, kinds
from .faulty_server import Fault, Site

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
    (("encoding", "gzip"), "compresses"),
    (("redirect", "http://[::1"), "Invalid IPv6 URL"),
    (("redirect", "http://a..b/"), "Failed to parse"),
    (("redirect", "/M\xfchle"), "invalid start byte"),
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
     ("reset", 0.6), ("stall", 0.5), ("drip", 0.4), "short length", "long length", "truncated",
     ("page", ("text/plain", b""))],
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


def test_what_was_whole_but_wrong_when_a_process_died_is_fetched_anew(
    site: Site, fetching: Fetching, home: Path
) -> None:
    site.faults = [("drop", 0.5), ("status", 404)]
    one = described(artifact(site.url("x.pth")))
    with pytest.raises(NetworkError):
        fetching(one)
    (partial,) = (home / "staging").glob("*.partial")
    partial.write_bytes(bytes(len(BODY)))  # As a power failure leaves what was not synced.
    folder, events = fetching(one)
    assert (folder / "x.pth").read_bytes() == BODY
    assert kinds(events) == ["mismatch", "start", "done"]


def test_numbers_that_no_file_has_are_no_numbers(site: Site, fetching: Fetching) -> None:
    site.faults = [("status", (503, {"Retry_After": "9" * 5000}))]
    fetching(described(artifact(site.url("x.pth"))))
    site.headers = {"Content_Length": "9" * 5000}
    folder, _ = fetching(described(artifact(site.url("x.pth")), name="again"))
    assert (folder / "x.pth").read_bytes() == BODY


def test_a_file_that_is_json_is_no_error_message(site: Site, fetching: Fetching) -> None:
    body = b'{"classes": ["road"]}'
    site.faults = [("page", ("application/json", body))]
    folder, _ = fetching(described(artifact(site.url("x.json"), body=body)))
    assert (folder / "x.pth").read_bytes() == body


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_an_archives_own_compression_is_no_encoding(
    site: Site, fetching: Fetching, encoding: str
) -> None:
    site.files["x.tgz"] = BODY
    site.faults = [("drop", 0.5), ("encoding", encoding)]
    folder, events = fetching(described(artifact(site.url("x.tgz"))))
    assert (folder / "x.pth").read_bytes() == BODY
    assert kinds(events) == ["start", "retry", "start", "done"]


def test_known_bytes_need_no_length(site: Site, fetching: Fetching) -> None:
    site.faults = ["no length"]
    folder, _ = fetching(described(artifact(site.url("x.pth"))))
    assert (folder / "x.pth").read_bytes() == BODY


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
