"""The command line, run in the test's process."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from deeplab_zoo.cli.main import main


class Ran(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ran]:
    """Run a command in the test's folder and process: starting PyTorch takes seconds."""

    def run(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["deeplab-zoo", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ran(int(ended.value.code or 0), out, err)

    return run
