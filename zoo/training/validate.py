"""mIoU while training: a model and a dataset enter, scores leave; over all processes."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...converters.numerics import Numerics
from ..data.dataset import Dataset
from ..data.loader import evaluation_loader
from ..evaluation.metrics import Scores, count, gather, scores, total
from ..models.inference import padded_size
from ..models.resampling import resize

Seen = Callable[[str, Tensor, Tensor, Tensor], None]


@torch.no_grad()
def validate(
    model: nn.Module,
    dataset: Dataset,
    numerics: Numerics,
    device: torch.device,
    *,
    channel: int | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    seen: Seen | None = None,
) -> Scores:
    """Score a model at the original sizes, by the profile's protocol.

    ``channel`` is the logit of one class against the rest. ``seen`` is called with each
    sample's id, input, prediction and truth. The model is in train mode again afterwards if it
    was before, each part as it was.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        judged = _predictions(model, dataset, numerics, device, channel, rank, world, workers)
        classes = len(dataset.legend.names)
        parts = []
        for name, image, predicted, truth in judged:
            parts.append(count(predicted, truth, name, classes))
            if seen is not None:
                seen(name, image, predicted, truth)
        return scores(gather(total(parts, classes)))
    finally:
        for module, mode in modes:
            module.training = mode


def _predictions(
    model: nn.Module,
    dataset: Dataset,
    numerics: Numerics,
    device: torch.device,
    channel: int | None,
    rank: int,
    world: int,
    workers: int,
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    for batch in evaluation_loader(dataset, numerics, rank=rank, world=world, workers=workers):
        image = batch["image"].to(device, non_blocking=True)
        height, width = image.shape[-2:]
        size = padded_size(height, numerics), padded_size(width, numerics)
        padded = functional.pad(image, (0, size[1] - width, 0, size[0] - height))
        found = resize(model(padded).float(), size, numerics)[..., :height, :width]
        ids = found.argmax(1) if channel is None else (found[:, channel] > 0).long()
        yield batch["id"][0], image[0], ids[0], batch["label"][0].to(device)
