import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config

Make = Callable[..., tuple[Path, Path]]
HEAVY = ("torch", "tensorflow", "lightning", "h5py", "cv2", "numpy")


def run(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as the console script does."""
    code = "import sys; from deeplab_zoo.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def imported_by(*arguments: str) -> list[str]:
    """Which heavy modules a command imports."""
    code = (
        "import sys; from deeplab_zoo.cli.main import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(json.loads(found.stderr.splitlines()[-1].replace("'", '"')))


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("convert", "--help"), ("convert", "caffe", "--help"),
     ("demo", "--help"), ("export", "--help"), ("finetune", "--help"), ("parity", "--help"), ("inspect", "--help"), ("doctor", "--help")],
)  # fmt: skip
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments) == []


def test_inspecting_a_text_file_imports_nothing_heavier_than_numpy(golden: Path) -> None:
    path = str(golden / "caffe" / "fmt_input_dim.prototxt")
    assert imported_by("inspect", path) == ["numpy"]


def test_the_help_names_every_command_with_its_line() -> None:
    found = run("--help").stdout
    for name in ("convert", "export", "inspect", "demo", "doctor"):
        assert f"\n  {name} " in found
    assert "deeplab-zoo demo" in found


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"deeplab-zoo, version {deeplab_zoo.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("convret",), 2, "Did you mean 'convert'?"),
        (("convert", "caffe", "--hdf", "x", "y"), 2, "--hdf5"),
        (("convert", "caffe", "x"), 2, "Missing option '-o'"),
        (("convert", "caffe", "a", "b", "c", "-o", "x.pth"), 2, "3 files, expected [PROTOTXT]"),
        (("convert", "caffe", "none.prototxt", "none", "-o", "x.pth"), 1, "none: no such file"),
        (
            ("convert", "caffe", "none", "-o", "x.onnx"),
            2,
            "expected one of .safetensors, .pth, .h5",
        ),
        (("export", "none.h5", "-o", "x.h5"), 2, "expected a name that ends in .pth"),
        (("export", "none.h5", "--layout", "mine", "-o", "x.pth"), 2, "'canonical'"),
        (("inspect", "none"), 1, "none: no such file"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    found = run(*arguments, cwd=tmp_path)
    assert found.returncode == code, found.stderr
    assert complaint in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_a_place_that_cannot_be_looked_at_exits_with_6(tmp_path: Path) -> None:
    found = run("inspect", "x" * 300, cwd=tmp_path)
    assert found.returncode == 6
    assert found.stderr == f"deeplab-zoo: {'x' * 300}: File name too long.\n"


def test_a_name_that_cannot_be_printed_costs_no_traceback(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.prototxt")
    try:
        (tmp_path / name).write_text('layer { name: "a" type: "ReLU" }')
    except OSError:
        pytest.skip("this file system has no such names")
    found = run("inspect", name, cwd=tmp_path, PYTHONIOENCODING="utf-8:strict")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(r"caf\udce9.prototxt: Caffe prototxt")


def test_damage_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "x.caffemodel").write_bytes(b"<html>gone</html>")
    found = run("convert", "caffe", "x.caffemodel", "-o", "x.pth", cwd=tmp_path)
    assert found.returncode == 3
    assert found.stderr.startswith("deeplab-zoo: x.caffemodel: is a web page")


def test_a_disk_that_cannot_be_written_exits_with_6(
    make_net: Make, tiny_config: DeepLabV2Config
) -> None:
    found = run("convert", "caffe", *make_net(tiny_config), "-o", "/none/x.safetensors")
    assert found.returncode == 6
    assert "the folder /none does not exist" in found.stderr


def test_convert_then_inspect_then_export(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_multi)
    found = run(
        "convert", "caffe", text, binary, "-o", "x.safetensors", "--hdf5", "x.h5", cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    assert "5 classes, multi-scale, numerics caffe-v2" in found.stdout
    assert "wrote x.safetensors" in found.stdout
    assert "wrote x.h5" in found.stdout
    for name, kind in {
        text.name: "Caffe prototxt",
        binary.name: "Caffe caffemodel",
        "x.h5": "deeplab-zoo archive",
        "x.safetensors": "safetensors weights",
    }.items():
        shown = run("inspect", name, cwd=tmp_path).stdout
        assert f"{name}: {kind}" in shown
        assert "DeepLab v2" in shown
    exported = run("export", "x.h5", "--layout", "isht7", "-o", "y.pth", cwd=tmp_path)
    assert "wrote y.pth" in exported.stdout
    assert "PyTorch state dict" in run("inspect", "y.pth", cwd=tmp_path).stdout


def test_json_answers_are_json(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_config)
    account = json.loads(
        run("convert", "caffe", text, binary, "-o", "x.safetensors", "--json", cwd=tmp_path).stdout
    )
    assert account["config"]["blocks"] == [1, 2, 4, 3]
    assert account["tensors"]["backbone.conv1.weight"] == ["conv1[0]"]
    found = json.loads(run("inspect", "x.safetensors", "--json", cwd=tmp_path).stdout)
    assert found["kind"] == "safetensors weights"
    assert {row["name"] for row in found["tensors"]} == set(account["tensors"])
    row = found["tensors"][0]
    assert row["minimum"] <= row["mean"] <= row["maximum"]
    assert json.loads(run("doctor", "--json").stdout)["deeplab-zoo"] == deeplab_zoo.__version__


def test_inspect_reads_caffes_hdf5_weights(golden: Path) -> None:
    shown = run("inspect", golden / "caffe" / "fmt_new.caffemodel.h5").stdout
    assert "Caffe HDF5 weights" in shown
    assert "conv1[0]" in shown


def test_doctor_shows_versions_devices_and_the_cache_folder(tmp_path: Path) -> None:
    shown = run("doctor", DEEPLAB_ZOO_CACHE=str(tmp_path)).stdout
    for line in (
        "deeplab-zoo",
        "torch",
        "protobuf",
        "devices",
        f"cache folder             {tmp_path}",
    ):
        assert line in shown


def test_the_demo_proves_a_conversion_and_leaves_its_report(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    found = run("demo", "-o", "here", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert (
        "PASS: 528 of 528 tensors bit-exact, 436 of 436 blobs within 1e-05 of OpenCV"
        in found.stdout
    )
    assert {one.name for one in (tmp_path / "here").iterdir()} == {
        "deploy.prototxt", "narrow.caffemodel", "narrow.h5", "narrow.safetensors",
        "report.html", "report.json", "report.md", "shapes", "finetuned",
    }  # fmt: skip
    before, after = re.findall(r"mIoU (0\.\d+) -> (0\.\d+)", found.stderr)[0]
    assert float(after) > float(before) + 0.05
    assert f"evaluated: mIoU {float(after):.2%}" in found.stderr
    assert (tmp_path / "here" / "finetuned" / "model.safetensors").is_file()
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    assert report["passed"]
    assert len(report["cases"][0]["comparisons"]) == 436


def test_shell_completion_is_there() -> None:
    found = run(_DEEPLAB_ZOO_COMPLETE="bash_source")
    assert "_deeplab_zoo_completion" in found.stdout
