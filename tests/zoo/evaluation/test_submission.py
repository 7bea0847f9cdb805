import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_zoo import ZooError
from deeplab_zoo.zoo.data.legend import VOC
from deeplab_zoo.zoo.evaluation.paint import palette
from deeplab_zoo.zoo.evaluation.submission import submission

TABLE = palette(VOC.colours)
IDS = np.arange(15, dtype=np.uint8).reshape(3, 5)


def test_the_archive_has_the_servers_layout(tmp_path: Path) -> None:
    for name in ("a.tgz", "b.tar.gz"):
        with submission(tmp_path / name, "test", TABLE) as add:
            add("2008_000006", IDS)
            add("2008_000011", IDS[:2])
    assert (tmp_path / "a.tgz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "a.tgz") as archive:
        folder = "results/VOC2012/Segmentation/comp6_test_cls"
        assert archive.getnames() == [f"{folder}/2008_000006.png", f"{folder}/2008_000011.png"]
        picture = Image.open(archive.extractfile(f"{folder}/2008_000006.png"))
        assert picture.mode == "P"
        np.testing.assert_array_equal(picture, IDS)
        assert picture.getpalette()[3:6] == [128, 0, 0]


def test_another_archive_is_replaced_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(b"other")
    with (
        pytest.raises(ZooError, match="a.tgz: is there already"),
        submission(path, "test", TABLE),
    ):
        pass
    assert path.read_bytes() == b"other"
    with submission(path, "test", TABLE, overwrite=True) as add:
        add("one", IDS)
    assert tarfile.is_tarfile(path)


def test_what_failed_halfway_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with submission(tmp_path / "a.tgz", "test", TABLE) as add:
            add("one", IDS)
            raise ZooError("no")

    with pytest.raises(ZooError, match="no"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "competition", "problem"),
    [("a.zip", "comp6", "ends in .tgz"), ("a.tgz", "comp7", "comp5, comp6"),
     ("none/a.tgz", "comp6", "does not exist")],
)  # fmt: skip
def test_what_the_server_would_not_take_is_refused(
    tmp_path: Path, name: str, competition: str, problem: str
) -> None:
    with (
        pytest.raises(ZooError, match=problem),
        submission(tmp_path / name, "test", TABLE, competition),
    ):
        pass
