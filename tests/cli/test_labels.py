import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {0: (0, 0, 0), 3: (128, 128, 0), 15: (192, 128, 128)}


def run(*arguments: object, code: int = 0) -> str:
    """Run the command line; return what it printed, or complained of where it failed."""
    script = (
        "import sys; from deeplab_zoo.cli.main import main\n"
        "try: main()\nfinally: assert not {'torch', 'cv2'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, "labels", *map(str, arguments)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr
    return found.stderr if code else found.stdout


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two samples whose masks are colours, and grey pictures of these."""
    for name in ("images", "colours", "labels"):
        (tmp_path / name).mkdir()
    for one, shown in (("x", 3), ("y", 15)):
        Image.new("RGB", (7, 5)).save(tmp_path / "images" / f"{one}.jpg")
        mask = np.zeros((5, 7, 3), np.uint8)
        mask[:2] = COLOURS[shown]
        Image.fromarray(mask).save(tmp_path / "colours" / f"{one}.png")
        Image.fromarray(mask).convert("L").save(tmp_path / "labels" / f"{one}.png")
    return tmp_path


def test_check_then_convert_then_check(folders: Path) -> None:
    complaint = run("check", folders, "--classes", "voc", code=3)
    assert "folders train: 2 of 2 samples cannot be used" in complaint
    assert "x.png: is a grey picture of a colour mask: its values 113" in complaint
    assert "'deeplab-zoo labels convert" in complaint
    assert "wrote 2 masks" in run("convert", folders / "colours", folders / "ids")
    shown = run("check", folders, "--images", "images", "--labels", "ids", "--classes", "voc")
    assert "folders train: 2 samples" in shown
    assert "15 person" in shown
    fields = json.loads(
        run("check", folders, "--images", "images", "--labels", "ids", "--classes", "voc", "--json")
    )
    assert fields["pixels"]["bird"] == fields["pixels"]["person"] == 14
    assert fields["images"]["background"] == 2
    assert fields["problems"] == []


def test_converting_from_grey_names_what_cannot_be_told(folders: Path) -> None:
    complaint = run("convert", folders / "labels", folders / "ids", "--from", "grey", code=3)
    assert "1 of 2 masks not converted" in complaint
    assert "x.png: cannot be told from its greys: 113 is bird or sofa" in complaint
    assert [path.name for path in (folders / "ids").iterdir()] == ["y.png"]


def test_scribbles_are_drawn_checked_and_not_overwritten_unasked(tmp_path: Path) -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 20:70] = 3
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for one in ("x", "y"):
        Image.new("RGB", (90, 60)).save(tmp_path / "images" / f"{one}.png")
        Image.fromarray(mask).save(tmp_path / "labels" / f"{one}.png")
    command = ("scribble", tmp_path / "labels", tmp_path / "drawn", "--share", "0.05")
    assert "wrote 2 masks" in run(*command)
    drawn = {one: (tmp_path / "drawn" / f"{one}.png").read_bytes() for one in ("x", "y")}
    assert drawn["x"] != drawn["y"]
    shown = run("check", tmp_path, "--labels", "drawn", "--classes", "voc", "--json")
    pixels = json.loads(shown)["pixels"]
    assert sum(pixels.values()) == pytest.approx(0.05 * 2 * mask.size, rel=0.2)
    assert pixels["background"] > 0 < pixels["bird"]
    complaint = run(*command, code=2)
    assert "has 2 of the files to write" in complaint
    assert "--overwrite" in complaint
    run(*command, "--overwrite", "--seed", "7", "--workers", "0")
    assert (tmp_path / "drawn" / "x.png").read_bytes() != drawn["x"]
    assert "expected more than 0" in run(*command, "--share", "2", "--overwrite", code=2)
    (tmp_path / "none").mkdir()
    assert "holds no masks" in run("scribble", tmp_path / "none", tmp_path / "other", code=3)


@pytest.mark.parametrize("arguments", [(), ("check",), ("convert",), ("scribble",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    script = (
        "import sys; from deeplab_zoo.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'PIL', 'scipy'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, "labels", *arguments, "--help"]
    assert "Usage: deeplab-zoo labels" in subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout  # fmt: skip


def test_a_mistake_is_one_message(folders: Path) -> None:
    assert "no such file or folder" in run("check", folders / "none", code=2)
    assert "which classes" in run("check", folders, code=2)
    assert "expected no --layout" in run("check", folders, "--sbd", ".", "--labels", "x", code=2)


@pytest.mark.golden
def test_camvid_is_sound(shared: Path) -> None:
    assert "10 bicyclist" in run("check", shared / "data" / "camvid", "--split", "val")


def test_coco_instances_become_masks_that_a_training_reads(folders: Path) -> None:
    pytest.importorskip("pycocotools")
    square = {"id": 1, "image_id": 4, "category_id": 2, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    images = [
        {"id": 4 + one, "file_name": f"{name}.jpg", "height": 5, "width": 7}
        for one, name in enumerate("xy")
    ]
    content = {"images": images, "annotations": [square], "categories": [{"id": 2, "name": "kite"}]}
    (folders / "instances.json").write_text(json.dumps(content))
    assert "wrote 2 masks" in run("coco", folders / "instances.json", folders / "masks")
    classes = folders / "masks" / "classes.txt"
    shown = run("check", folders, "--images", "images", "--labels", "masks", "--classes", classes)
    assert shown.splitlines()[3].split() == ["1", "kite", "4", "5.714%", "1"]
