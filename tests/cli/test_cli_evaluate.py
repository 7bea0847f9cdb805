import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config

Make = Callable[..., tuple[Path, Path]]


Run = Callable[..., Any]


@pytest.fixture
def files(make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path) -> Path:
    """Write x.safetensors, and a VOC folder of two images for val and one for test."""
    text, binary = make_net(tiny_config, 65, 97)
    deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.h5")
    deeplab_zoo.export(tmp_path / "x.h5", tmp_path / "x.pth", to="pth", layout="canonical")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    random = np.random.default_rng(1)
    for one in ("a", "b", "c"):
        photo = random.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / "voc" / "JPEGImages" / f"{one}.jpg")
        mask = random.integers(0, 5, (20, 30), np.uint8)
        Image.fromarray(mask).save(tmp_path / "voc" / "SegmentationClass" / f"{one}.png")
    lists = tmp_path / "voc" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("a\nb\n")
    (lists / "test.txt").write_text("c\n")
    return tmp_path


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_help_imports_nothing_heavy(command: str) -> None:
    script = (
        "import sys; from deeplab_zoo.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'PIL', 'scipy'} & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, command, "--help"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert f"Usage: deeplab-zoo {command}" in ran.stdout


@pytest.mark.usefixtures("files")
def test_one_model_leaves_three_reports_and_will_not_overwrite_them(run_here: Run) -> None:
    arguments = ("evaluate", "x.h5", "--data", "voc", "--classes", "5", "--size", "65")
    found = run_here(*arguments, "-o", "out")
    assert found.returncode == 0, found.stderr
    assert "on 2 images of voc val (padded to 65; caffe-v2)" in found.stdout
    assert "scored 2 of 2" in found.stderr
    read = json.loads(Path("out/report.json").read_text())
    assert read["files"].keys() == {"x.h5"}
    assert read["dataset"] == "voc"
    assert Path("out/report.html").stat().st_size > 1000
    again = run_here(*arguments, "-o", "out")
    assert again.returncode == 6
    assert "report.json: is there already" in again.stderr
    assert run_here(*arguments, "-o", "out", "--overwrite", "--json", "--flip").stdout.startswith(
        "{"
    )


def test_a_glob_of_checkpoints_gives_the_curve_in_order(run_here: Run, files: Path) -> None:
    for step in (9, 1000, 200):
        (files / f"iter_{step}.h5").write_bytes((files / "x.h5").read_bytes())
    found = run_here(
        "evaluate", "iter_*.h5", "--data", "voc", "--classes", "5", "--size", "65", "--limit", "1",
        "--trimap", "0", "-o", "out",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    read = json.loads(Path("out/curve.json").read_text())
    assert [one["subject"] for one in read["points"]] == ["iter_9", "iter_200", "iter_1000"]
    assert Path("out/iter_200/report.html").exists()
    assert found.stdout.endswith("Report: out/curve.html\n")


@pytest.mark.usefixtures("files")
def test_a_test_set_without_masks_is_predicted_for_the_server(run_here: Run) -> None:
    arguments = (
        "evaluate",
        "x.h5",
        "--data",
        "voc",
        "--split",
        "test",
        "--classes",
        "5",
        "--size",
        "65",
    )
    assert "no mask to judge by" in run_here(*arguments).stderr
    found = run_here(
        *arguments, "--submission", "results.tgz", "--competition", "comp5", "-o", "new"
    )
    assert found.returncode == 0, found.stderr
    with tarfile.open("results.tgz") as archive:
        assert archive.getnames() == ["results/VOC2012/Segmentation/comp5_test_cls/c.png"]
        # As the devkit reads it: an index per pixel of the photo, void not among them.
        picture = Image.open(archive.extractfile(archive.getnames()[0]))
        assert (picture.mode, picture.size) == ("P", (30, 20))
        assert np.asarray(picture).max() < 5
    assert not Path("new").exists()


@pytest.mark.usefixtures("files")
def test_one_class_against_the_rest(run_here: Run) -> None:
    found = run_here(
        "evaluate", "x.h5", "--data", "voc", "--classes", "5", "--size", "65", "--binary", "3",
        "--by-sign", "--json", "--centre-crop", "17",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "on 2 images of voc val (centre crop of 17, padded to 65; caffe-v2)" in found.stdout
    assert json.loads(found.stdout)["classes"] == ["not class 3", "class 3"]


def test_predictions_from_a_list_on_stdin(run_here: Run, files: Path) -> None:
    found = run_here(
        "predict", "x.h5", "-", "--overlay", "--size", "original", "-o", "out",
        stdin="voc/JPEGImages/a.jpg\nvoc/JPEGImages/b.jpg\n",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        "a-overlay.png", "a.png", "b-overlay.png", "b.png",
    ]  # fmt: skip
    model = deeplab_zoo.load(files / "x.h5", evaluate_as="torch-halfpixel")
    run_here(
        "predict", "x.h5", "voc/JPEGImages/a.jpg", "--evaluate-as", "torch-halfpixel", "-o", "other"
    )
    photo = np.array(Image.open("voc/JPEGImages/a.jpg"))
    np.testing.assert_array_equal(Image.open("other/a.png"), model.predict(photo))


def test_a_damaged_picture_stops_the_run_unless_skipped(run_here: Run, files: Path) -> None:
    path = files / "voc" / "JPEGImages" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    evaluate = ("evaluate", "x.h5", "--data", "voc", "--classes", "5", "--size", "65")
    found = run_here(*evaluate)
    assert (found.returncode, "a.jpg: is damaged" in found.stderr) == (3, True)
    found = run_here(*evaluate, "--skip-bad", "--json")
    assert found.returncode == 0, found.stderr
    read = json.loads(found.stdout)
    assert (len(read["images"]), len(read["skipped"])) == (1, 1)
    found = run_here("predict", "x.h5", "voc/JPEGImages", "--size", "65", "--skip-bad")
    assert "1 of 3 images could not be read" in found.stderr
    assert found.stdout == "wrote 2 files to predictions\n"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["evaluate", "x.h5", "--data", "voc"], 1, "has 5 classes, voc val has 21"),
        (["evaluate", "y*.h5", "--data", "voc"], 2, "no file fits"),
        (["evaluate", "x.h5", "--data", "none"], 2, "no such file"),
        (["evaluate", "x.h5", "--data", "voc", "--numerics", "tf-slim"], 1, "caffe-v2"),
        (["evaluate", "x.h5", "--data", "voc", "--device", "tpu9"], 2, "device 'tpu9'"),
        (["evaluate", "x.h5", "--data", "voc", "--by-sign"], 2, "goes with --binary"),
        (["evaluate", "x.h5", "--data", "voc", "--scales", "1,x"], 2, "expected numbers"),
        (["evaluate", "x.h5", "--data", "voc", "--size", "²"], 2, "expected profile"),
        (["evaluate", "x.h5", "--data", "voc", "--scales", "1,nan"], 2, "numbers above 0"),
        (["evaluate", "x.h5", "--data", "voc", "--crf-parameters", "x=1"], 2, "expected some of"),
        (["evaluate", "x.h5", "--data", "voc", "-o", "x.h5/out"], 6, "no folder to write into"),
        (["predict", "x.h5", "voc", "--no-mask"], 2, "nothing to write"),
        (["predict", "x.h5", "none.jpg"], 2, "does not exist"),
        (["predict", "x.h5", "voc/JPEGImages", "--classes", "voc"], 2, "voc has 21, the model 5"),
    ],
)
def test_what_cannot_be_done_says_why(
    run_here: Run, arguments: list[str], code: int, problem: str
) -> None:
    found = run_here(*arguments)
    assert found.returncode == code, found.stderr
    assert problem in found.stderr


def test_every_option_that_the_ancestors_flags_are_said_to_be_exists() -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    said = re.findall(r"`(evaluate|predict) (--[a-z-]+)`", text.split("## The ancestors' flags")[1])
    known = {
        (name, option)
        for name in ("evaluate", "predict")
        for parameter in import_module(f"deeplab_zoo.cli.{name}").__dict__[name].params
        for option in parameter.opts
    }
    assert len(said) >= 16
    assert set(said) <= known
