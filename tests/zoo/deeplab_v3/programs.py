"""What the programs' nets are, and random state dicts of theirs, an eighth as wide."""

from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

import deeplab_zoo
from deeplab_zoo import DeepLabV3Config
from deeplab_zoo.converters.deeplab_v3 import parameters
from deeplab_zoo.converters.naming.deeplab_v3 import NAMING
from deeplab_zoo.zoo.models.deeplab_v3 import DeepLabV3

State = dict[str, Tensor]

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


def narrow(name: str) -> tuple[str, DeepLabV3Config]:
    layout, _, config = PROGRAMS[name]
    kind = config.backbone.replace("101", "50")
    return layout, replace(config, classes=5, width=1 / 8, backbone=kind)


def in_layout(layout: str, config: DeepLabV3Config) -> dict[str, tuple[int, ...]]:
    named = {}
    for name, shape in parameters(config).items():
        module, _, parameter = name.rpartition(".")
        named[f"{NAMING.from_canonical(layout, module, {})}.{parameter}"] = shape
    return named


def random_state(layout: str, config: DeepLabV3Config, seed: int = 0) -> State:
    """Statistics away from 0 and 1, weights that keep the activations in range."""
    draw = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in in_layout(layout, config).items():
        if name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=draw) + 0.4
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
        elif len(shape) == 4:
            scale = (1.5 / prod(shape[1:])) ** 0.5
            state[name] = torch.randn(shape, generator=draw) * scale
        elif name.endswith("weight"):
            state[name] = torch.rand(shape, generator=draw) * 0.5 + 0.5
        else:
            state[name] = torch.randn(shape, generator=draw) * 0.3
    return state


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
