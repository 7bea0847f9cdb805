"""What a run tells, where it was cut off and where it cannot be written."""

from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import StorageError
from deeplab_zoo.zoo.training.log import Log


def log(folder: Path, start: int, *, tensorboard: bool = False) -> Log:
    return Log(folder, ["ce"], 9, start, lambda _: None, bar=False, tensorboard=tensorboard)


def told(folder: Path, start: int, *steps: int) -> None:
    with log(folder, start, tensorboard=True) as made:
        for step in steps:
            made.update(step, {"ce": 10.0 * start + step}, 1e-3, 2.0)


def test_tensorboard_shows_each_update_of_a_run_that_was_cut_off_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    told(tmp_path, 0, 1, 2, 3)
    told(tmp_path, 2, 3, 4)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    values = [(one.step, one.value) for one in shown.Scalars("train/loss")]
    assert values == [(1, 1), (2, 2), (3, 23), (4, 24)]
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["1", "1"], ["2", "2"], ["3", "23"],
                                                        ["4", "24"]]  # fmt: skip


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with log(tmp_path, 0) as made:
        (tmp_path / "log.csv").unlink()
        (tmp_path / "log.csv").mkdir()
        with pytest.raises(StorageError, match=r"log\.csv: cannot be written: Is a directory"):
            made.update(1, {"ce": 1.0}, 1e-3, 2.0)
