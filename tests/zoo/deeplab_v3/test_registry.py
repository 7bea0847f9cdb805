"""The shipped entries' recipes on random files of their nets' names: a name becomes a model."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import deeplab_zoo
from deeplab_zoo import DeepLabV3
from deeplab_zoo.zoo.weights.registry import SHIPPED

from .programs import Make, narrow


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("torchvision-deeplabv3-mobilenet-v3-large-coco", "torchvision-mobilenet"),
        ("mmseg-deeplabv3-resnet101-cocostuff164k-80k", "openmmlab-v3"),
        ("pytorchcv-deeplabv3-resnetd50b-ade20k", "pytorchcv"),
    ],
)
def test_an_entry_is_fetched_converted_and_loaded(
    program_state: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, name: str
) -> None:
    shipped: dict[str, Any] = next(
        one for one in yaml.safe_load(SHIPPED.read_text())["entries"] if one["name"] == entry
    )
    config, layout = narrow(name)
    config = replace(config, classes=shipped["classes"], backbone=shipped["arch"]["backbone"])
    weights = shipped["recipe"]["weights"]
    torch.save(
        {"state_dict": program_state(config, layout, counters=True), "meta": {}}, tmp_path / weights
    )
    (artifact,) = shipped["artifacts"]
    ours: dict[str, Any] = {"filename": artifact["filename"]}
    if "archive" in artifact:
        with zipfile.ZipFile(tmp_path / artifact["filename"], "w") as file:
            file.write(tmp_path / weights, weights)
        member = {"path": weights, "filename": weights}
        ours["archive"] = {**artifact["archive"], "members": [member]}
    ours["sources"] = [{"url": artifact["filename"]}]
    shipped |= {"name": "ours", "artifacts": [ours]}
    text = yaml.safe_dump({"schema_version": 1, "entries": [shipped]})
    (tmp_path / "registry.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPLAB_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPLAB_ZOO_LOCK", str(tmp_path / "deeplab-zoo.lock"))
    monkeypatch.setenv("DEEPLAB_ZOO_REGISTRY", str(tmp_path / "registry.yaml"))
    deeplab_zoo.fetch("ours", trust_on_first_use=True)
    model = deeplab_zoo.load("ours")
    assert model.config == config
    assert config.output_stride == shipped["arch"]["output_stride"]
    assert isinstance(model, DeepLabV3)
    assert model.numerics.name == shipped["numerics"]
