"""How a server is reached: certificates, proxies, redirects, and who is asked over plain http."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import NetworkError
from deeplab_zoo.zoo.weights import sources

from .conftest import BODY, Fetching, artifact, described
from .faulty_server import Site, serving


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


def test_a_bundle_that_is_not_there_is_no_trouble_with_the_disk(
    tmp_path: Path, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(NetworkError, match=r"CA certificate bundle, invalid path: .*none\.pem"):
        fetching(described(artifact("https://127.0.0.1:9/x.pth")))


def test_redirects_are_followed(site: Site, fetching: Fetching) -> None:
    site.faults = [("redirect", None), ("redirect", None)]
    folder, _ = fetching(described(artifact(site.url("x.pth"))))
    assert (folder / "x.pth").read_bytes() == BODY


def test_redirects_without_end_are_a_network_error(site: Site, fetching: Fetching) -> None:
    site.faults = [("redirect", None)] * 100
    with pytest.raises(NetworkError, match="TooManyRedirects"):
        fetching(described(artifact(site.url("x.pth"))))
