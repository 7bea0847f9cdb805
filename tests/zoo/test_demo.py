"""The demo's own logic; that it runs is tested through the command line."""

import math
from pathlib import Path

import pytest

from deeplab_zoo.zoo import demo
from deeplab_zoo.zoo.training.job import Result


def test_a_training_that_was_told_to_stop_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Result(None, 3, math.nan, math.nan)
    monkeypatch.setattr(demo, "finetune", lambda *_, **__: stopped)
    with pytest.raises(KeyboardInterrupt):
        list(demo.trained(tmp_path / "x.safetensors", tmp_path, 0))
