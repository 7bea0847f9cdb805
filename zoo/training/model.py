"""The net that is trained: weights of another run or framework enter, a prepared net leaves."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...converters import families
from ...converters.architectures import ARCHITECTURES, config_of, demand, drawn, find
from ...converters.archive import Origin, tool
from ...converters.deeplab_v2 import DeepLabV2Config
from ...converters.deeplab_v3 import DeepLabV3Config
from ...converters.export import open_weights
from ...converters.files import sha256
from ...converters.native import fresh_head
from ...converters.numerics import profile
from ...converters.weights import Weights
from ...proto.errors import MismatchError, UsageError
from ..models.load import Native, build, file_of
from .config import TrainConfig
from .sharding import blocks, local

MSC_SCALES = (1.0, 0.75, 0.5)  # The authors' train.prototxt.

SCRATCH = "scratch"  # In place of weights: drawn ones.


def begun(weights: str | Path, config: TrainConfig, numerics: str | None = None) -> Weights:
    """Open the weights that a run starts from, or draw those of ``config.arch``.

    Raises
    ------
    ZooError
        They cannot be read, or are another architecture's; `SCRATCH` without an architecture,
        or with statistics that would never be taken.

    """
    if weights != SCRATCH:
        path = file_of(weights)
        given = open_weights(path, numerics=numerics)
        if config.arch:
            demand(given.config, config.arch)
        return replace(given, origin=Origin("deeplab-zoo", {path.name: sha256(path)}, tool()))
    if not config.arch:
        raise UsageError(
            f"{SCRATCH}: of which net? Name one of {', '.join(ARCHITECTURES)} (--arch)."
        )
    conventions = profile(numerics or find(config.arch).numerics)
    given = drawn(config_of(config.arch), config.seed, conventions)
    if config.batch_norm == "frozen" and any(one.endswith("running_var") for one in given.state):
        raise UsageError(
            f"{SCRATCH}: BatchNorm would keep statistics that nobody took. Move them "
            "(--batch-norm trained)."
        )
    return given


def fitted(weights: Weights, config: TrainConfig, names: tuple[str, ...]) -> tuple[Weights, str]:
    """Give weights the scales and the head that a run needs; say what was done to the head.

    ``names`` are the dataset's classes, before ``binary``. A head of another number of classes
    is refused unless the config says to reset it.

    Raises
    ------
    MismatchError
        The head's classes are not the dataset's.

    """
    weights = _scaled(weights, config)
    found = weights.config.classes
    alone = bool(config.binary) and 1 in (config.num_classes, found)  # One logit will do.
    wanted = config.num_classes or (1 if alone else len(names))
    if wanted != len(names) and not alone:
        raise MismatchError(
            f"num_classes: {wanted}, the dataset has {len(names)} classes"
            + (" (1 will do with --binary)." if config.binary else ".")
        )
    if wanted == found and not config.reset_head:
        return weights, ""
    if not config.reset_head and not config.num_classes:
        raise MismatchError(
            f"the weights: a head of {found} classes, the dataset has {wanted}. Draw a new head "
            "(--reset-head), or name the dataset's classes (--classes)."
        )
    family = families.of_config(weights.config)
    sizes = family.config.from_json({**weights.config.to_json(), "classes": wanted})
    head = fresh_head(family, sizes, config.seed)
    told = f"drew a new head of {wanted} classes (it had {found}): {', '.join(head)}"
    return replace(weights, config=sizes, state={**weights.state, **head}), told


def _scaled(weights: Weights, config: TrainConfig) -> Weights:
    """Give weights one scale, or several for ``msc``."""
    held = weights.config
    if not isinstance(held, DeepLabV2Config):
        if config.msc:
            raise MismatchError("msc: DeepLab v2 has several scales, these weights are another's.")
        return weights
    scales: tuple[float, ...] = (1.0,)
    if config.msc:
        scales = config.scales or (held.scales if len(held.scales) > 1 else MSC_SCALES)
    return replace(weights, config=replace(held, scales=scales))


def demand_statistics(weights: Weights, config: TrainConfig, world: int = 1) -> None:
    """Raise `MismatchError` if a BatchNorm would take its statistics of one value.

    DeepLab v3 pools the whole picture; of one picture there is one value for each channel.
    """
    moving = config.batch_norm != "frozen" and not config.train_last
    alone = config.batch_size == 1 and not (config.batch_norm == "sync" and world > 1)
    if moving and alone and isinstance(weights.config, DeepLabV3Config):
        raise MismatchError(
            f"batch_norm {config.batch_norm}: DeepLab v3 pools each picture to one value, and one "
            "value has no statistics. Say --batch-size 2 or more, or --batch-norm frozen."
        )


def make_model(weights: Weights, config: TrainConfig, world: int = 1) -> Native:
    """Build a net in train mode, with what stays fixed fixed.

    Raises
    ------
    MismatchError
        Activation checkpointing of a net that has no blocks to compute again.

    """
    model = build(weights)
    if config.batch_norm == "sync" and world > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    last = families.of_config(weights.config).naming.head
    for name, parameter in model.named_parameters():
        if config.train_last and not name.startswith(last):
            parameter.requires_grad_(False)
    if config.batch_norm in ("frozen", "statistics"):
        for norm in norms(model):
            norm.requires_grad_(False)
    if config.activation_checkpointing:
        parts = list(blocks(model))
        if not parts:
            raise MismatchError("activation_checkpointing: of a VGG, which has no blocks for it.")
        for block in parts:
            setattr(block, "forward", partial(checkpoint, block.forward, use_reentrant=False))  # noqa: B010
    if config.compile:
        model.compile()
    return train_mode(model, config)


def train_mode(model: Native, config: TrainConfig) -> Native:
    """Put a net in train mode, but BatchNorm whose statistics do not move."""
    model.train()
    if config.batch_norm == "frozen" or config.train_last:
        for norm in norms(model):
            norm.eval()
    return model


def norms(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the BatchNorm layers, synchronised ones too."""
    kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
    return (module for module in model.modules() if isinstance(module, kinds))


class RunningMean:
    """An exponential mean of a model's floating-point state."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: one.clone() for name, one in _floating(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an update."""
        torch._foreach_lerp_(local(self.state), local(dict(_floating(model))), 1 - self.decay)


def _floating(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, one) for name, one in model.state_dict().items() if one.is_floating_point()]
