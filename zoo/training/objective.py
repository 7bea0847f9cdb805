"""What is minimised: a net's outputs and a batch enter, the terms of the loss leave.

With several processes the terms are those of the whole batch, and each process's gradient is
such that their mean, which DistributedDataParallel takes, is the gradient of the whole batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...converters.numerics import Numerics
from ...proto.errors import UsageError
from ..data.legend import VOID
from ..data.loader import Batch, region
from ..losses.criterion import Criterion
from ..losses.registry import LOSSES, build_loss
from ..models.inference import pixels
from ..models.resampling import resize
from .config import TrainConfig
from .targets import matched

# Losses that are a mean over pixels, or over images with some. The Lovász losses of a batch are
# neither, and gather it; those of images are means over equally many on each process.
MEANS = {"ce": "pixels", "partial-ce": "pixels", "focal": "pixels", "bce": "pixels",
         "hinge": "pixels", "jaccard": "images"}  # fmt: skip

Sum = Callable[[Tensor], Tensor]


class Objective(nn.Module):
    """The terms of the loss, by name; their sum is the loss.

    Parameters
    ----------
    criterion
        Of scores and labels.
    numerics
        The net's grid and mean.
    classes
        Of the labels.
    targets
        How labels and scores get one size, see `targets.matched`.
    channel
        The logit that losses of two classes look at; None for losses of many.
    regularizer
        Of images (0..255), probabilities and regions; of the last output only.
    world, total
        How many processes there are, and the sum of a tensor over them.

    """

    mean: Tensor

    def __init__(
        self,
        criterion: Criterion,
        numerics: Numerics,
        classes: int,
        *,
        targets: str = "nearest",
        channel: int | None = None,
        regularizer: nn.Module | None = None,
        world: int = 1,
        total: Sum = lambda one: one,
    ) -> None:
        super().__init__()
        self.criterion, self.numerics, self.classes = criterion, numerics, classes
        self.targets, self.channel, self.regularizer = targets, channel, regularizer
        self.world, self.total = world, total

    @property
    def names(self) -> list[str]:
        """The terms' names, in their order."""
        return [*self.criterion.losses, *(["densecrf"] if self.regularizer is not None else [])]

    def forward(self, outputs: Tensor | Sequence[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the terms, each the sum over the outputs."""
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        labels, inside = region(batch["label"])
        terms: dict[str, Tensor] = {}
        for output in outputs:
            scores, truth = matched(output, labels, self.targets, self.numerics, self.classes)
            if self.channel is not None:
                scores = scores[:, self.channel]
            for name, term in self.criterion.parts(scores, truth).items():
                whole = term * self._share(name, truth)
                terms[name] = terms[name] + whole if name in terms else whole
        if self.regularizer is not None:
            scores = resize(outputs[-1].float(), labels.shape[-2:], self.numerics)
            photos = pixels(batch["image"], self.numerics)
            terms["densecrf"] = self.regularizer(photos, scores.softmax(1), inside.float())
        return terms

    def _share(self, name: str, truth: Tensor) -> Tensor | float:
        """Return what makes a mean of this process's pixels one of all processes' pixels.

        A mean is a sum over a count; divided by the count of the whole batch, and multiplied by
        the number of processes, the mean over processes is the mean over the whole batch.
        """
        if self.world == 1 or name not in MEANS:
            return 1.0
        counted = truth != VOID
        weight: Tensor | None = getattr(self.criterion.losses[name], "weight", None)
        own: Tensor
        if weight is not None:
            own = (weight[truth.masked_fill(~counted, 0)] * counted).sum()
        elif MEANS[name] == "images":
            own = counted.flatten(1).any(1).sum().float()
        else:
            own = counted.sum().float()
        whole = self.total(own.clone()).clamp_min(torch.finfo(own.dtype).tiny)
        return own * self.world / whole


def make_objective(
    config: TrainConfig,
    numerics: Numerics,
    classes: int,
    *,
    channel: int | None = None,
    class_weights: Sequence[float] | None = None,
    world: int = 1,
    total: Sum = lambda one: one,
) -> Objective:
    """Return what a config minimises.

    ``classes`` are those of the labels, 2 for one class against the rest, whose logit is then
    ``channel``.

    Raises
    ------
    UsageError
        A loss of two classes without ``binary``, or one of many with it; class weights for a
        loss that takes none.

    """
    name = "proximal" if config.proximal else config.loss
    if channel is not None and name == "ce":
        name = "bce"  # What cross entropy is with two classes.
    parts = name.split("+")
    known = [LOSSES[part] for part in parts if part in LOSSES]
    if known and known[0].binary != (channel is not None):
        two = [one for one, row in LOSSES.items() if row.binary]
        raise UsageError(
            f"loss {name!r}: losses of two classes ({', '.join(two)}) go with --binary CLASS, and "
            "only these."
        )
    taken = {option for row in known for option in row.options}
    offered: dict[str, Any] = {
        "validate": False,  # The scan has seen every label, and the loop looks at the loss.
        "distributed": world > 1,
        "gamma": config.focal_gamma,
        "lam": config.proximal_lam,
        "method": "path" if config.proximal_steps else "exact",
        "max_steps": config.proximal_steps,
    }
    if config.per_image:
        offered["per_image"] = True
    if class_weights is not None:
        if "weight" not in taken:
            raise UsageError(f"class_weights: loss {name!r} takes none.")
        offered["weight"] = class_weights
    options = {key: value for key, value in offered.items() if key in taken}
    criterion = build_loss(name, config.loss_weights or None, **options)
    return Objective(
        criterion,
        numerics,
        classes,
        targets=config.targets,
        channel=channel,
        regularizer=_densecrf(config) if config.regularizer == "densecrf" else None,
        world=world,
        total=total,
    )


def _densecrf(config: TrainConfig) -> nn.Module:
    from ..losses.densecrf import DenseCRFLoss  # Late: it compiles.

    return DenseCRFLoss(
        config.crf_weight, config.crf_sigma_rgb, config.crf_sigma_xy, config.crf_scale,
        normalisation="pixel" if config.crf_normalisation == "pixel" else "none",
    )  # fmt: skip


def class_weights(text: str, pixels: Sequence[int]) -> list[float] | None:
    """Read ``class_weights``: numbers, or ``balanced`` by the pixels of each class.

    Balanced is ``1 / log(1.02 + share)``, rloss's ``--use-balanced-weights`` (Paszke et al.,
    ENet, arXiv:1606.02147).
    """
    if not text:
        return None
    if text == "balanced":
        return [1 / math.log(1.02 + one / max(sum(pixels), 1)) for one in pixels]
    try:
        weights = [float(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"class_weights: {text!r}, expected numbers or balanced.") from None
    if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise UsageError(
            f"class_weights: {text}, expected numbers of at least 0, one of them more."
        )
    if len(weights) != len(pixels):
        raise UsageError(f"class_weights: {len(weights)}, the dataset has {len(pixels)} classes.")
    return weights


def settle(objective: Objective, config: TrainConfig, step: int) -> None:
    """Set what depends on the step: the proximal cost in the second half, as jaccardSegment."""
    losses = objective.criterion.losses
    if "proximal" in losses:
        half = config.proximal_lam_half if step >= config.steps / 2 else 1.0
        setattr(losses["proximal"], "lam", config.proximal_lam * half)  # noqa: B010
