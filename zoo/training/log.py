"""What a run tells: a CSV of every logged update, lines or a bar for people, TensorBoard."""

import csv
import importlib.util
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...converters.files import write_text
from ...proto.errors import StorageError

Print = Callable[[str], None]


class Log:
    """Writes each logged update where it belongs.

    Parameters
    ----------
    folder
        Of the run; ``log.csv`` is continued from ``start``, later rows are dropped: a run that
        was cut off writes them again. None where another process writes.
    terms
        Names of the loss's terms.
    steps, start
        Updates in all, and those already done.
    show
        Prints a line; where there is a terminal a bar stands below the lines.
    bar
        Whether to draw it.
    tensorboard
        Whether to write TensorBoard's files, if it is installed.

    """

    def __init__(
        self,
        folder: Path | None,
        terms: Sequence[str],
        steps: int,
        start: int,
        show: Print,
        *,
        bar: bool,
        tensorboard: bool,
    ) -> None:
        self.path = folder / "log.csv" if folder else None
        self.steps, self.show = steps, show
        self.began, self.start = time.monotonic(), start
        parts = terms if len(terms) > 1 else ()
        self.columns = ["step", "loss", *parts, "lr", "images_per_second", "miou"]
        self._cut(start)
        self.bar = _bar(steps, start) if bar and folder else None
        self.board = _board(folder / "tensorboard", start) if tensorboard and folder else None

    def _cut(self, start: int) -> None:
        """Drop rows of updates that will come again."""
        if self.path is None:
            return
        rows: list[list[str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                whole = (one for one in csv.reader(file) if len(one) == len(self.columns))
                rows = [one for one in whole if one[0].isdigit() and int(one[0]) <= start]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self.columns, *rows])
        write_text(self.path, text.getvalue())

    def __enter__(self) -> "Log":
        """Draw the bar."""
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close what is open."""
        if self.bar is not None:
            self.bar.stop()
        if self.board is not None:
            self.board.close()

    def update(self, step: int, terms: Mapping[str, float], rate: float, speed: float) -> None:
        """Tell of an update: its loss and the terms of it, the rate, images per second."""
        loss = sum(terms.values())
        numbers = {"loss": loss, **({} if len(terms) == 1 else terms), "lr": rate}
        row = {name: f"{value:.8g}" for name, value in numbers.items()}
        self._row({"step": step, **row, "images_per_second": f"{speed:.2f}"})
        parts = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        text = f"{parts} {speed:.1f} img/s"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=step, told=text)
        else:
            left = (time.monotonic() - self.began) / max(step - self.start, 1)
            eta = _clock(left * (self.steps - step))
            self.show(f"step {step}/{self.steps} {text}, {eta} left")
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(f"train/{name}", value, step)

    def judging(self, done: int, total: int) -> None:
        """Tell on the bar how far a validation is."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], told=f"validated {done} of {total}")

    def score(self, step: int, miou: float, per_class: Mapping[str, float]) -> None:
        """Tell of a validation."""
        self._row({"step": step, "miou": f"{miou:.6f}"})
        self.say(f"step {step}: mIoU {miou:.4f}")
        if self.board is not None:
            self.board.add_scalar("val/miou", miou, step)
            for name, value in per_class.items():
                self.board.add_scalar(f"val_iou/{name}", value, step)

    def say(self, text: str) -> None:
        """Print a line."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False)
        else:
            self.show(text)

    def panel(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture (height, width, 3) in TensorBoard."""
        if self.board is not None:
            self.board.add_image(f"val/{name}", picture, step, dataformats="HWC")

    def _row(self, row: Mapping[str, object]) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
                writer.writerow(row)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}.") from error


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _bar(steps: int, start: int) -> Any:
    """Return a progress bar on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = Progress(
        BarColumn(20), MofNCompleteColumn(), Remaining(), TextColumn("{task.fields[told]}"),
        console=Console(stderr=True),
    )  # fmt: skip
    bar.add_task("", total=steps, completed=start, told="")
    return bar


def _board(folder: Path, start: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    # TensorBoard's switch: else it imports TensorFlow wherever that is installed.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    from torch.utils.tensorboard import SummaryWriter

    # TensorBoard forgets this step and the later ones; a run that begins shows step 0 again.
    return SummaryWriter(str(folder), purge_step=start + 1 if start else 0)
