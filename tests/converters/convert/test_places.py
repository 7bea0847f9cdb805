"""Places that cannot be written to, and a conversion that is interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

import deeplab_zoo
from deeplab_zoo import ZooError
from deeplab_zoo.cli.main import main
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.files import replacing
from deeplab_zoo.converters.weights import read as read_weights
from deeplab_zoo.proto.errors import StorageError, UsageError

Make = Callable[..., tuple[Path, Path]]


@pytest.mark.parametrize("name", ["x.onnx", "x", "x.caffemodel"])
def test_an_unknown_suffix_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"expected one of .safetensors, .pth, .h5"):
        deeplab_zoo.convert_caffe(None, "none", tmp_path / name)


def test_a_missing_output_folder_is_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the folder .*none does not exist. Create it first"):
        deeplab_zoo.convert_caffe(*files, tmp_path / "none" / "x.pth")


def test_a_folder_as_output_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.pth").mkdir()
    with pytest.raises(ZooError, match="is a folder, expected the name of a file"):
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_pipe_or_a_device_as_output_is_refused_and_left(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(ZooError, match="is a device or a pipe, expected the name of a file"):
        deeplab_zoo.convert_caffe(*files, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").is_fifo()


def test_what_is_read_is_not_written_over(files: tuple[Path, Path], tmp_path: Path) -> None:
    text, binary = files
    held = binary.read_bytes()
    source, out = binary.rename(tmp_path / "x.h5"), tmp_path / "y.safetensors"
    (tmp_path / "link").symlink_to(tmp_path)
    for result, kept in ((source, None), (tmp_path / "link" / "x.h5", None), (out, source)):
        with pytest.raises(UsageError, match="x.h5: is read or written already"):
            deeplab_zoo.convert_caffe(text, source, result, keep_hdf5=kept)
    with pytest.raises(UsageError, match="y.safetensors: is read or written already"):
        deeplab_zoo.convert_caffe(text, source, out, keep_hdf5=out)
    assert source.read_bytes() == held
    assert not out.exists()


def test_a_name_that_no_disk_takes_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written: File name too long"):
        deeplab_zoo.convert_caffe(*files, tmp_path / f"{'x' * 300}.pth")
    with pytest.raises(StorageError, match=r"net.prototxt is a file, expected a folder"):
        deeplab_zoo.convert_caffe(*files, files[0] / "x.pth")


def test_a_program_that_is_told_to_end_removes_what_it_had_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["deeplab-zoo", "--version"])
    try:
        with pytest.raises(SystemExit):
            main()
        with pytest.raises(SystemExit) as stopped, replacing(tmp_path / "x"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 143
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given kind; needs the right to."""
    places: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small file system is not permitted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "h5"])
def test_a_full_disk_leaves_what_was_there(
    files: tuple[Path, Path], mounted: Callable[[str], Path], kind: str
) -> None:
    out = mounted("size=32k") / f"x.{kind}"
    out.write_bytes(b"before")
    with pytest.raises(StorageError, match=f"x.{kind}: cannot be written: the disk is full"):
        deeplab_zoo.convert_caffe(*files, out)
    assert out.read_bytes() == b"before"
    assert [one.name for one in out.parent.iterdir()] == [out.name]


def test_a_read_only_disk_is_named(
    files: tuple[Path, Path], mounted: Callable[[str], Path]
) -> None:
    out = mounted("ro") / "x.safetensors"
    with pytest.raises(StorageError, match="cannot be written: Read-only file system"):
        deeplab_zoo.convert_caffe(*files, out)


def test_ctrl_c_at_any_time_leaves_no_half_written_file(make_net: Make, tmp_path: Path) -> None:
    text, binary = make_net(DeepLabV2Config(stem=32, widths=(32, 64, 128, 256)))
    folder = tmp_path / "out"
    folder.mkdir()
    command = [
        sys.executable, "-c",
        # What a shell runs in the background, these tests too perhaps, is deaf to Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import deeplab_zoo.cli.main as m, sys; print('ready', flush=True); m.main()",
        "convert", "caffe", str(text), str(binary), "-o", str(folder / "x.safetensors"),
        "--hdf5", str(folder / "x.h5"),
    ]  # fmt: skip
    interrupted = 0
    for step in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.08 * (step + 1))
            os.kill(process.pid, signal.SIGINT)
            _, complaint = process.communicate(timeout=60)
        if process.returncode == 130:
            interrupted += 1
            assert b"interrupted; nothing half-written remains" in complaint
        else:  # too late: the work is done, and the interpreter may be on its way out (-SIGINT)
            assert process.returncode in (0, -signal.SIGINT), complaint
            assert b"Traceback" not in complaint
            assert {left.name for left in folder.iterdir()} == {"x.safetensors", "x.h5"}, complaint
        for left in folder.iterdir():
            assert left.suffix in (".safetensors", ".h5"), f"{left} is left over"
            if left.suffix == ".h5":
                with h5py.File(left) as file:
                    assert file.attrs["format"] == "deeplab-zoo archive"
            else:
                assert len(read_weights(left).state) == len(parameters(DeepLabV2Config()))
            left.unlink()
    assert interrupted >= 2
