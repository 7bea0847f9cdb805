import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config

pytest.importorskip("cv2")

Make = Callable[..., tuple[Path, Path]]


Run = Callable[..., Any]


@pytest.fixture
def run(run_here: Run) -> Run:
    """Run the command in this process."""
    return partial(run_here, "parity")


@pytest.fixture
def files(make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path) -> list[Path]:
    text, binary = make_net(tiny_config, 65, 97)
    deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.safetensors")
    return [tmp_path / "x.safetensors", text, binary]


def test_a_converted_model_passes_and_leaves_three_reports(
    run: Run, files: list[Path], tmp_path: Path
) -> None:
    found = run(*files, "--size", "65x97", "-o", "out")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("PASS: ")
    assert "photo, 65x97: OpenCV" in found.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html", "report.json", "report.md",
    ]  # fmt: skip


def test_weights_of_another_file_fail_with_exit_code_9(
    run: Run, files: list[Path], tmp_path: Path
) -> None:
    deeplab_zoo.convert_caffe(*files[1:], tmp_path / "y.h5")
    deeplab_zoo.export(tmp_path / "y.h5", tmp_path / "y.ckpt", to="tf", mixed_numerics=True)
    deeplab_zoo.convert_tensorflow(tmp_path / "y.ckpt", tmp_path / "y.safetensors")
    found = run(
        tmp_path / "y.safetensors", *files[1:], "--size", "65x97", "--diagnose", "--no-exact",
        "--json",
    )  # fmt: skip
    assert found.returncode == 9
    report = json.loads(found.stdout)
    assert report["passed"] is False
    assert report["numerics"] == ["tf-slim", "caffe-v2"]
    assert report["diagnosis"]["convention"] == "mean"
    assert "is not shown to be the function" in found.stderr


def test_a_prototxt_and_caffemodel_alone_check_the_graph(
    run: Run, files: list[Path], tmp_path: Path
) -> None:
    found = run(*files[1:], "--no-exact")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "parity" / "report.md").read_text().startswith("# Parity: a Caffe net")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["x.safetensors"], 2, "Give its source"),
        (["x.safetensors", "net.prototxt"], 2, "expected [PROTOTXT] CAFFEMODEL, or one file"),
        (["x.safetensors", "net.prototxt", "net.caffemodel", "--size", "9"], 2, "such as 321,481"),
        (["x.safetensors", "net.prototxt", "net.caffemodel", "--size", "0x9"], 2, "above 0"),
        (["x.safetensors", "net.prototxt", "net.caffemodel", "--engine", "x"], 2, "engine 'x'"),
        (["x.safetensors", "net.prototxt", "net.caffemodel", "--tolerance", "x"], 2, "tolerance"),
        (["x.safetensors", "net.prototxt", "net.caffemodel", "--image", "net.prototxt"], 3,
         "is not a picture"),
        (["x.safetensors", "net.prototxt", "net.caffemodel", "-o", "net.prototxt"], 6,
         "no folder to write into"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_why(
    run: Run, arguments: list[str], code: int, problem: str
) -> None:
    found = run(*arguments)
    assert found.returncode == code, found.stderr
    assert problem in found.stderr


def test_what_is_missing_for_the_page_is_told_before_the_work(
    run: Run, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = run(*files, "--size", "33x47")
    assert found.returncode == 1
    assert "Matplotlib is not installed" in found.stderr
    assert "reading the files" not in found.stderr


@pytest.mark.usefixtures("files")
def test_a_seed_below_zero_is_none(run: Run) -> None:
    assert run("x.safetensors", "--seed", "-1").returncode == 2
