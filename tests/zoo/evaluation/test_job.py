import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deeplab_zoo import ZooError
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.data.legend import VOC
from deeplab_zoo.zoo.evaluation import job, network
from deeplab_zoo.zoo.evaluation.evaluate import Judge, Work
from deeplab_zoo.zoo.evaluation.processes import together
from deeplab_zoo.zoo.evaluation.protocol import Protocol

Make = Callable[..., torch.nn.Module]
CPU = torch.device("cpu")


def test_numbers_in_names_are_ordered_as_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("iter_9.pth", "iter_1000.pth", "iter_20.pth", "best.pth"):
        Path(name).touch()
    found = job.checkpoints(["best.pth", "iter_*.pth"])
    assert [one.name for one in found] == ["best.pth", "iter_9.pth", "iter_20.pth", "iter_1000.pth"]
    assert set(found.values()) == {None}
    with pytest.raises(ZooError, match=r"x\*.pth: no file fits"):
        job.checkpoints(["x*.pth"])


def test_an_entry_is_held_against_what_was_published(
    monkeypatch: pytest.MonkeyPatch, toy: Make, data: Dataset, tmp_path: Path
) -> None:
    weights = tmp_path / "converted.safetensors"
    weights.touch()
    monkeypatch.setattr(job, "file_of", lambda _: weights)
    monkeypatch.setattr(job, "open_network", lambda *_: toy(21))
    files = job.checkpoints(["deeplabv2-resnet101-voc"])
    voc = replace(data, legend=VOC)
    [found] = job.evaluate_files(
        files, voc, tmp_path / "out", Protocol(), Judge(), Work(), CPU, evaluate_as="tf-slim"
    )
    assert found.subject == "deeplabv2-resnet101-voc"
    assert found.foreign
    assert "Published: 76.35% (multi-scale, no CRF; " in (tmp_path / "out/report.md").read_text()
    assert len(json.loads((tmp_path / "out/report.json").read_text())["published"]) == 2
    page = (tmp_path / "out/report.html").read_text()
    assert re.findall("<h3>(.*?):", page) == found.worst(8)


def test_a_name_that_is_not_utf8_does_not_cost_the_report(
    monkeypatch: pytest.MonkeyPatch, toy: Make, data: Dataset, tmp_path: Path
) -> None:
    monkeypatch.setattr(job, "open_network", lambda *_: toy(5))
    own = tmp_path / "own.pth"
    own.touch()
    odd = replace(data.samples[0], id=os.fsdecode(b"caf\xe9"))
    latin = replace(data, samples=(odd, *data.samples[1:]))
    judge = Judge(trimap=0, boundary=False)
    job.evaluate_files({own: None}, latin, tmp_path / "out", Protocol(), judge, Work(), CPU)
    assert "<h3>caf\\udce9:" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_several_reports_go_to_folders_of_the_names_that_were_given(
    monkeypatch: pytest.MonkeyPatch, toy: Make, data: Dataset, tmp_path: Path
) -> None:
    own, entry = tmp_path / "own.pth", tmp_path / "cache" / "0123abcd.safetensors"
    entry.parent.mkdir()
    for path in (own, entry):
        path.touch()
    monkeypatch.setattr(job, "open_network", lambda *_: toy(5))
    monkeypatch.setattr(job, "published", lambda *_: ())
    files = {own: None, entry: "an-entry"}
    judge = Judge(trimap=0, boundary=False)
    job.evaluate_files(files, data, tmp_path / "out", Protocol(), judge, Work(), CPU)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "an-entry", "curve.html", "curve.json", "curve.md", "own",
    ]  # fmt: skip


def test_reports_of_one_name_are_refused(data: Dataset, tmp_path: Path) -> None:
    files = dict.fromkeys((Path("a/x.pth"), Path("b/x.pth")))
    with pytest.raises(ZooError, match="checkpoints of the same name: x"):
        job.evaluate_files(files, data, tmp_path, Protocol(), Judge(), Work(), CPU)
    with pytest.raises(ZooError, match="is of one model, 2 are given"):
        job.submitting(tmp_path / "a.tgz", files, data, "comp6", overwrite=False)


def test_a_graph_is_no_native_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "load", lambda *_, **__: Graph.__new__(Graph))
    with pytest.raises(ZooError, match="is a graph without a numerics profile"):
        network.open_network("x.safetensors", CPU)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ZooError, match="device 'nonsense'"), together("nonsense"):
        pass
    with together("auto") as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ZooError, match="device 'cuda'"), together("cuda"):
            pass
