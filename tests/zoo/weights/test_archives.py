import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import IntegrityError
from deeplab_zoo.zoo.weights import archives
from deeplab_zoo.zoo.weights.archives import unpack
from deeplab_zoo.zoo.weights.lock import lock_path, read_lock
from deeplab_zoo.zoo.weights.schema import Archive, Member
from deeplab_zoo.zoo.weights.status import is_cached
from deeplab_zoo.zoo.weights.store import tree_digest

from .conftest import BODY, Fetching, artifact, described, digest, entry_of

FILES = {
    "net/a.caffemodel": b"aaaa",
    "net/b.caffemodel": b"bb" * 40_000,
    "net/deploy.prototxt": b"c",
}


def zipped(path: Path, files: dict[str, bytes] = FILES, *special: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
        for info in special:
            file.writestr(info, b"target")
    return path


def tarred(path: Path, files: dict[str, bytes] = FILES, *special: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for info in special:
            file.addfile(info)
    return path


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (mode | 0o644) << 16
    return info


def tar_info(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


TRAVERSAL = ["../evil", "net/../../evil", "/etc/evil", "C:/evil", "net\\..\\evil", "//host/evil"]


@pytest.mark.parametrize("name", TRAVERSAL)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_folder_are_refused_by_name(
    tmp_path: Path, name: str, kind: str
) -> None:
    make = zipped if kind == "zip" else tarred
    path = make(tmp_path / "x", {**FILES, name: b"evil"})
    with pytest.raises(IntegrityError) as caught:
        unpack(path, Archive(kind), tmp_path / "into")  # type: ignore[arg-type]
    assert caught.value.exit_code == 3
    assert repr(name) in str(caught.value)
    assert not [*tmp_path.rglob("evil")]


@pytest.mark.parametrize(
    ("kind", "words"),
    [(tarfile.SYMTYPE, "is a link to '/etc/passwd'"), (tarfile.LNKTYPE, "is a link to '/etc/passwd'"),
     (tarfile.CHRTYPE, "is a device"), (tarfile.BLKTYPE, "is a device"), (tarfile.FIFOTYPE, "is a device")],
)  # fmt: skip
def test_links_and_devices_in_a_tar_are_refused_by_name(
    tmp_path: Path, kind: bytes, words: str
) -> None:
    path = tarred(tmp_path / "x.tgz", FILES, tar_info("net/odd", kind, "/etc/passwd"))
    with pytest.raises(IntegrityError, match=f"'net/odd': {words}"):
        unpack(path, Archive("tar"), tmp_path / "into")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused_by_name(tmp_path: Path, mode: int) -> None:
    path = zipped(tmp_path / "x.zip", FILES, zip_info("net/odd", mode))
    with pytest.raises(IntegrityError, match="'net/odd': is a"):
        unpack(path, Archive("zip"), tmp_path / "into")


def test_all_bad_names_are_in_one_error(tmp_path: Path) -> None:
    odd = tar_info("link", tarfile.SYMTYPE, "x")
    path = tarred(tmp_path / "x", {"../a": b"", "net/con.txt": b"", "A": b"", "a": b""}, odd)
    with pytest.raises(IntegrityError, match="4 names") as caught:
        unpack(path, Archive("tar"), tmp_path / "into")
    for part in ("'../a'", "'net/con.txt': Windows", "'a': is in there twice", "'link'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs_are_refused_before_they_fill_the_disk(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SMALL", 100_000)
    make = zipped if kind == "zip" else tarred
    path = make(tmp_path / "x", {"small": b"1", "zeros": bytes(3_000_000)})
    with pytest.raises(IntegrityError, match="'zeros'.*bomb"):
        unpack(path, Archive(kind), tmp_path / "into")  # type: ignore[arg-type]
    assert not (tmp_path / "into" / "zeros").exists()


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_that_fills_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    info = tar_info("x", kind)
    info.size = 1 << 32
    with gzip.open(tmp_path / "x", "wb") as file:
        file.write(info.tobuf() + bytes(1 << 20))
    with pytest.raises(IntegrityError, match="a header of 4294967296 bytes"):
        unpack(tmp_path / "x", Archive("tar"), tmp_path / "into")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(IntegrityError, match="3 files.*at most 2 files"):
        unpack(zipped(tmp_path / "x"), Archive("zip"), tmp_path / "into")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive_is_refused(tmp_path: Path, kind: str) -> None:
    make = zipped if kind == "zip" else tarred
    path = make(tmp_path / "x", {"noise": BODY[:50_000]})
    data = bytearray(path.read_bytes())
    data[20_000:20_050] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        unpack(path, Archive(kind), tmp_path / "into")  # type: ignore[arg-type]
    path.write_bytes(b"not an archive at all")
    with pytest.raises(IntegrityError, match="damaged"):
        unpack(path, Archive(kind), tmp_path / "into")  # type: ignore[arg-type]


def packed(kind: str) -> bytes:
    """A small archive, compressed by zip's or tar's methods."""
    body = io.BytesIO()
    if kind in ("stored", "deflated", "bzip2", "lzma"):
        method = getattr(zipfile, f"ZIP_{kind.upper()}")
        with zipfile.ZipFile(body, "w", method) as file:
            file.writestr("ü/a", b"hello" * 20)
    else:
        with tarfile.open(fileobj=body, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo("ü/a")
            info.size = 100
            tar.addfile(info, io.BytesIO(b"hello" * 20))
    return body.getvalue()


@pytest.mark.parametrize("kind", ["stored", "deflated", "bzip2", "lzma", "", "gz", "bz2", "xz"])
def test_damage_at_any_byte_is_an_archive_refused_and_no_traceback(
    tmp_path: Path, kind: str
) -> None:
    whole = packed(kind)
    type_ = "zip" if kind in ("stored", "deflated", "bzip2", "lzma") else "tar"
    refused = 0
    for at in range(0, min(len(whole), 700), 3):
        path = tmp_path / f"{at}"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            unpack(path, Archive(type_), tmp_path / f"into{at}")  # type: ignore[arg-type]
        except IntegrityError:
            refused += 1
    assert refused


def test_an_archive_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="without files"):
        unpack(zipped(tmp_path / "x", {"folder/": b""}), Archive("zip"), tmp_path / "into")


def test_names_that_are_no_utf8_have_a_tree_digest(tmp_path: Path) -> None:
    # Old programs wrote names in Latin-1, which Python reads with surrogates.
    path = tmp_path / "x"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as file:
        file.addfile(tarfile.TarInfo("Mühle"))
    (found,) = unpack(path, Archive("tar"), tmp_path / "into")
    assert tree_digest({found.name: digest(b"")}) == digest(
        f"{digest(b'')}  ".encode() + b"M\xfchle\n"
    )


def test_only_the_members_listed_are_unpacked_from_whatever_folder(tmp_path: Path) -> None:
    wanted = (Member("a.caffemodel", "first.caffemodel"), Member("net/deploy.prototxt", "d"))
    mac = {**FILES, "__MACOSX/net/a.caffemodel": b"resource fork"}
    found = unpack(zipped(tmp_path / "x", mac), Archive("zip", wanted), tmp_path / "into")
    assert {one.path.name: one.path.read_bytes() for one in found} == {
        "first.caffemodel": b"aaaa", "d": b"c",
    }  # fmt: skip
    assert found[0].digests["sha1"] == digest(b"aaaa", "sha1")


@pytest.mark.parametrize("files", [{"x": b""}, {"p/a.caffemodel": b"1", "q/a.caffemodel": b"2"}])
def test_a_member_must_be_there_once(tmp_path: Path, files: dict[str, bytes]) -> None:
    wanted = (Member("a.caffemodel", "a"),)
    with pytest.raises(IntegrityError, match="two members|is in there 0 times"):
        unpack(zipped(tmp_path / "x", files), Archive("zip", wanted), tmp_path / "into")


def test_members_with_digests_are_verified_whatever_the_archives_bytes(
    tmp_path: Path, fetching: Fetching, home: Path
) -> None:
    member = {"path": "a.caffemodel", "filename": "a.caffemodel", "digests": {"sha1": digest(b"aaaa", "sha1")},
              "evidence": [{"grade": "A", "covers": ["sha1"], "where": "here"}]}  # fmt: skip
    path = zipped(tmp_path / "x.zip")
    one = described(artifact(path.as_uri(), body=None, filename="x.zip",
                             archive={"type": "zip", "members": [member]}))  # fmt: skip
    assert entry_of(one).state == "weak"
    folder, events = fetching(one)
    assert (folder / "a.caffemodel").read_bytes() == b"aaaa"
    assert events[-1].detail["words"] == "matches sha1; sha256 locked"
    assert set(read_lock(lock_path())) == {"mine/a.caffemodel"}
    assert [*(home / "staging").iterdir()] == []
    zipped(path, {"other/a.caffemodel": b"aaaa"})  # Another zip of the same file.
    (folder / "a.caffemodel").unlink()
    fetching(one, locked=True)
    zipped(path, {"other/a.caffemodel": b"aaab"})
    (folder / "a.caffemodel").unlink()
    with pytest.raises(IntegrityError, match="sha1"):
        fetching(one)


def test_a_pinned_archive_vouches_for_its_members(tmp_path: Path, fetching: Fetching) -> None:
    path = tarred(tmp_path / "x.tar.gz")
    members = [{"path": name, "filename": Path(name).name} for name in FILES]
    one = described(artifact(path.as_uri(), body=path.read_bytes(), filename="x.tar.gz",
                             archive={"type": "tar", "members": members}))  # fmt: skip
    _, events = fetching(one)
    words = [event.detail["words"] for event in events if event.kind == "done"]
    assert words == ["verified sha256 of the archive"] * 3
    assert [event.kind for event in fetching(one)[1]] == ["cached"] * 3


def test_a_whole_archive_becomes_a_folder_locked_by_what_is_in_it(
    tmp_path: Path, fetching: Fetching
) -> None:
    path = zipped(tmp_path / "masks.zip")
    one = described(
        artifact(path.as_uri(), body=None, filename="masks.zip", archive={"type": "zip"})
    )
    folder, _ = fetching(one, trust=True)
    assert {
        str(p.relative_to(folder / "masks")): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    } == FILES
    before = read_lock(lock_path())["mine/masks"]
    # Packed again, with other dates and order: other bytes, the same files.
    zipped(path, dict(reversed(FILES.items())))
    (folder / "masks" / "net" / "deploy.prototxt").unlink()
    assert not is_cached(entry_of(one))
    fetching(one, locked=True)
    assert (folder / "masks" / "net" / "deploy.prototxt").read_bytes() == b"c"
    assert read_lock(lock_path())["mine/masks"] == before
    zipped(path, {**FILES, "net/more": b""})
    (folder / "masks" / "net" / "deploy.prototxt").unlink()
    with pytest.raises(IntegrityError, match="as locked on"):
        fetching(one)


def test_a_malicious_archive_leaves_nothing_behind(
    tmp_path: Path, fetching: Fetching, home: Path
) -> None:
    path = tarred(tmp_path / "x.tgz", {**FILES, "../evil": b""})
    one = described(artifact(path.as_uri(), body=None, filename="x.tgz", archive={"type": "tar"}))
    with pytest.raises(IntegrityError, match="'../evil'"):
        fetching(one, trust=True)
    assert not (home / "files").exists()
    assert [*(home / "staging").iterdir()] == []
