"""The demo's own logic; that it runs is tested through the command line."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo import demo
from deeplab_zoo.zoo.training.job import Result


@pytest.mark.parametrize(("data", "kept"), [("VOC2012", True), ("shapes", False)])
def test_a_training_is_removed_if_a_demo_before_left_it_and_else_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, kept: bool
) -> None:
    monkeypatch.setattr(demo, "finetune", lambda *_, **__: Result(None, 3, math.nan, math.nan))
    config = tmp_path / "finetuned" / "config.yaml"
    config.parent.mkdir()
    config.write_text(f"data: {tmp_path / data}\n")
    with pytest.raises(KeyboardInterrupt):
        list(demo.trained(tmp_path / "x.safetensors", tmp_path, 0))
    assert config.exists() == kept


def test_a_training_that_was_told_to_stop_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Result(None, 3, math.nan, math.nan)
    monkeypatch.setattr(demo, "finetune", lambda *_, **__: stopped)
    with pytest.raises(KeyboardInterrupt):
        list(demo.trained(tmp_path / "x.safetensors", tmp_path, 0))


def test_a_prototxt_written_by_the_demo_says_what_it_is(
    make_net: Callable[..., tuple[Path, Path]], tiny_config: DeepLabV2Config
) -> None:
    text, _ = make_net(tiny_config)
    assert prototxt.read(text).name == "deeplab_v2"


def test_a_folder_with_files_of_somebody_elses_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.opencv, "version", lambda: "4")
    (tmp_path / "deploy.prototxt").write_text("mine")
    with pytest.raises(UsageError, match=r"deploy\.prototxt: is there already, and no demo's"):
        list(demo.run(tmp_path))
    assert (tmp_path / "deploy.prototxt").read_text() == "mine"
