"""The table of the ancestors' flags in docs/training.md: every one of ours is accepted and runs."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from deeplab_zoo.cli.finetune import finetune
from deeplab_zoo.zoo.training.config import KEYS

DOCS = Path(__file__).parents[3] / "docs" / "training.md"
ROW = re.compile(r"\| (jaccardSegment|isht7|DrSleep|rloss) \| (.+?) \| (.*?) ?\| (.*?) ?\|")
ELSEWHERE = (
    "--sbd",
    "--devices",
    "--batch-norm sync",
    "--num-classes",
)  # Need more than a picture.


def table() -> list[tuple[str, str, str, str]]:
    found = (ROW.fullmatch(line) for line in DOCS.read_text().splitlines())
    return [(one[1], one[2], one[3], one[4]) for one in found if one]


def flags(cell: str) -> str:
    """Return our flags of a cell; none where the answer is an argument or that there is none."""
    return cell.strip("`") if cell.startswith("`") else ""


OURS = sorted({flags(cell) for _, _, cell, _ in table()} - {""})


def words(ours: str, folder: Path) -> list[str]:
    places = {"CLASS": "disc", "N": "1", "X": "0.001", "FOLDER": str(folder), "FILE": str(folder)}
    return [places.get(word, word) for word in shlex.split(ours)]


def test_every_ancestors_flag_has_an_answer() -> None:
    rows = table()
    counts = {name: sum(one[0] == name for one in rows) for name in
              ("jaccardSegment", "isht7", "DrSleep", "rloss")}  # fmt: skip
    assert counts == {"jaccardSegment": 26, "isht7": 9, "DrSleep": 21, "rloss": 29}
    for program, flag, ours, note in rows:
        assert ours or note, (program, flag)


@pytest.mark.parametrize("ours", OURS)
def test_a_flag_is_accepted(ours: str, tmp_path: Path) -> None:
    # Raises click.NoSuchOption or BadParameter.
    context = finetune.make_context("finetune", ["w", "d", *words(ours, tmp_path)])
    assert isinstance(context, click.Context)


@pytest.mark.parametrize("ours", [one for one in OURS if not one.startswith(ELSEWHERE)])
def test_a_flag_runs(ours: str, weights: Path, shapes: Path, tmp_path: Path) -> None:
    if "--images" in ours or "--labels" in ours:
        ours = "--images images --labels labels"  # They go together.
    small = {"crop": 33, "steps": 1, "batch-size": 2, "accumulate": 1, "workers": 0, "threads": 1,
             "val-every": 0, "val-samples": 1, "save-every": 5, "lr": 1e-4}  # fmt: skip
    base = [f"--{name}={value}" for name, value in small.items()]
    given = [*base, "--no-tensorboard", "-o", str(tmp_path / "run"), *words(ours, tmp_path / "x")]
    found = CliRunner().invoke(finetune, [str(weights), str(shapes), *given])
    assert found.exit_code == 0, found.output + repr(found.exception)
    assert "after 1 updates" in found.output


def test_the_docs_name_flags_that_exist() -> None:
    known = {"--recipe", "--resume", "--numerics", "--solver", "--help"}
    known |= {f"--{name.replace('_', '-')}" for name in KEYS}
    known |= {f"--no-{name.replace('_', '-')}" for name in KEYS}
    text = DOCS.read_text().partition("## The ancestors' flags")[0]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    foreign = {"--is-training", "--ntasks-per-node", "--nnodes", "--nproc-per-node",
               "--rdzv-backend", "--rdzv-endpoint", "--no-python"}  # fmt: skip
    assert named - known == foreign
