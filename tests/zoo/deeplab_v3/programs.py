"""What the programs' nets are, also an eighth as wide, and the model of a state dict of theirs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import deeplab_zoo
from deeplab_zoo import DeepLabV3Config
from deeplab_zoo.converters.deeplab_v3 import parameters
from deeplab_zoo.converters.naming.deeplab_v3 import NAMING
from deeplab_zoo.zoo.models.deeplab_v3 import DeepLabV3

State = dict[str, Tensor]
Make = Callable[..., State]

# Layout, its facts, config.
PROGRAMS = {
    "torchvision-mobilenet": (
        "torchvision", "torchvision_deeplabv3_mobilenet_v3_large",
        DeepLabV3Config(21, "torchvision", "mobilenet_v3_large", False, 16, (12, 24, 36), True),
    ),
    "torchvision-50": (
        "torchvision", "torchvision_deeplabv3_resnet50",
        DeepLabV3Config(21, "torchvision", "resnet50", False, 8, (12, 24, 36), True),
    ),
    "openmmlab-v3": (
        "openmmlab", "mmseg_deeplabv3_r50-d8",
        DeepLabV3Config(21, "openmmlab", "resnet50", False, 8, (12, 24, 36), True),
    ),
    "openmmlab-v3plus": (
        "openmmlab", "mmseg_deeplabv3plus_r50-d8",
        DeepLabV3Config(21, "openmmlab", "resnet50", True, 8, (12, 24, 36), True),
    ),
    "pytorchcv": (
        "pytorchcv", "pytorchcv_deeplabv3_resnetd101b_voc",
        DeepLabV3Config(21, "pytorchcv", "resnetd101b", False, 8, (12, 24, 36), True),
    ),
    "pytorchcv-renumbered": (
        "pytorchcv-renumbered", "pytorchcv_deeplabv3_resnetd101b_voc_renumbered",
        DeepLabV3Config(21, "pytorchcv", "resnetd101b", False, 8, (12, 24, 36), True),
    ),
}  # fmt: skip
DEEPER = {
    "torchvision-101": ("torchvision-50", "torchvision_deeplabv3_resnet101"),
    "openmmlab-v3-101": ("openmmlab-v3", "mmseg_deeplabv3_r101-d8"),
    "openmmlab-v3plus-101": ("openmmlab-v3plus", "mmseg_deeplabv3plus_r101-d8"),
}
for _name, (_base, _facts) in DEEPER.items():
    _layout, _, _config = PROGRAMS[_base]
    PROGRAMS[_name] = _layout, _facts, replace(_config, backbone="resnet101")

# An eighth as wide and with the fewest blocks; other classes, as other data sets have.
NARROW = [name for name in PROGRAMS if "101" not in name]


def narrow(name: str) -> tuple[DeepLabV3Config, str]:
    """The net and its layout."""
    layout, _, config = PROGRAMS[name]
    kind = config.backbone.replace("101", "50")
    return replace(config, classes=5, width=1 / 8, backbone=kind), layout


def in_layout(layout: str, config: DeepLabV3Config) -> dict[str, tuple[int, ...]]:
    named = {}
    for name, shape in parameters(config).items():
        module, _, parameter = name.rpartition(".")
        named[f"{NAMING.from_canonical(layout, module, {})}.{parameter}"] = shape
    return named


def model_of(
    state: State, folder: Path, kept: tuple[str, ...] = ("state_dict",)
) -> tuple[DeepLabV3, Path]:
    meta = {"mmseg_version": "0.5.0", "CLASSES": ("a", "b"), "PALETTE": [[0, 0, 0]], "iter": 20000}
    found = {"meta": meta, "optimizer": {}, **dict.fromkeys(kept, state)} if kept else state
    torch.save(found, folder / "x.pth")
    deeplab_zoo.convert_legacy(folder / "x.pth", folder / "x.safetensors")
    model = deeplab_zoo.load(folder / "x.safetensors")
    assert isinstance(model, DeepLabV3)
    return model, folder / "x.safetensors"
