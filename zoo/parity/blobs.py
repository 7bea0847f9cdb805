"""Every blob of a native model's Caffe net, as the model computes it.

A model that Caffe never had has its units' outputs instead, under their names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...converters import families
from ...converters.largefov import OUTPUT_STRIDE
from ...converters.naming import deeplab_v2 as deeplab_v2_names
from ...converters.write_largefov import SCORES
from ..models.deeplab_v2 import DeepLabV2
from ..models.deeplab_v3 import DeepLabV3
from ..models.largefov import LargeFOV
from ..models.load import Native
from ..models.resampling import resize, scaled
from ..models.units import Conv, Pyramid, Residual

Recorded = dict[str, list[Tensor]]


@torch.inference_mode()
def activations(
    model: Native, image: NDArray[np.float32], dtype: torch.dtype = torch.float32
) -> dict[str, NDArray[np.float32]]:
    """Run the model and return its activations under Caffe's blob names.

    ``image`` is the prepared input (batch, 3, h, w), which the model takes as ``dtype``. A blob
    has the value that Caffe leaves in it after the forward pass, in-place layers applied.
    """
    x = torch.from_numpy(image).to(next(model.parameters()).device, dtype)
    with _recording(model) as recorded:
        scores = model.eval()(x)
    if isinstance(model, LargeFOV):
        found = _of_largefov(model, x, recorded, scores)
    elif isinstance(model, DeepLabV2):
        found = _of_deeplab_v2(model, x, recorded, scores)
    else:
        found = {"data": x} | {name: one for name, (one, *_) in recorded.items()}
    return {name: value.float().cpu().numpy() for name, value in found.items()}


def scores_of(model: Native) -> str:
    """Return the blob that the model returns."""
    if isinstance(model, DeepLabV3):
        return "classifier.score"
    if isinstance(model, LargeFOV):
        return "fc_fusion" if model.config.sides else SCORES
    if len(model.config.scales) > 1:
        return "fc_fusion"
    context = deeplab_v2_names.context_of(model.config.blocks)
    return str(deeplab_v2_names.blob_of("classifier", context))


@contextmanager
def _recording(model: Native) -> Iterator[Recorded]:
    """Keep the outputs of the modules that are blobs, once for each run."""
    family = families.of_config(model.config)
    context = family.context(model.config)
    recorded: Recorded = {}

    def wanted(name: str, module: nn.Module) -> bool:
        if family.caffe is None:
            return isinstance(module, (Conv, Residual, Pyramid))
        return family.naming.blob_of(name, context) is not None

    def record(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        recorded.setdefault(name, []).append(output)

    hooks = [
        module.register_forward_hook(partial(record, name))
        for name, module in model.named_modules()
        if wanted(name, module)
    ]
    try:
        yield recorded
    finally:
        for handle in hooks:
            handle.remove()


def _of_deeplab_v2(
    model: DeepLabV2, x: Tensor, recorded: Recorded, fused: Tensor
) -> dict[str, Tensor]:
    found = {"data": x}
    size = recorded["classifier"][0].shape[-2:]
    blob_of = deeplab_v2_names.blob_of
    for index, scale in enumerate(model.config.scales):
        context = deeplab_v2_names.context_of(model.config.blocks, scale)
        for name, outputs in recorded.items():
            found[str(blob_of(name, context))] = outputs[index]
        if scale != 1:
            found[f"data{context['scale']}"] = scaled(x, scale, model.numerics)
            scores = str(blob_of("classifier", context))
            found[f"{scores}_interp"] = resize(found[scores], size, model.numerics)
    if len(model.config.scales) > 1:
        found["fc_fusion"] = fused
    found["fc1_interp"] = _zoomed(fused, model)
    return found


def _of_largefov(
    model: LargeFOV, x: Tensor, recorded: Recorded, scores: Tensor
) -> dict[str, Tensor]:
    family = families.of_config(model.config)
    context = family.context(model.config)
    blobs = {family.naming.blob_of(name, context): outputs[0] for name, outputs in recorded.items()}
    found = {"data": x} | {str(blob): value for blob, value in blobs.items()}
    if len(model.config.rates) > 1:
        heads = [found[f"{SCORES}_{index}"] for index in range(1, len(model.config.rates) + 1)]
        found[SCORES] = sum(heads[1:], heads[0])
    found["fc8_interp"] = _zoomed(found[SCORES], model)
    if model.config.sides:
        for tap in list(model.classifier.sides)[1:]:
            found[f"{tap}_interp"] = resize(found[f"{tap}_ms"], x.shape[-2:], model.numerics)
        found["fc_fusion"] = scores
    return found


def _zoomed(scores: Tensor, model: DeepLabV2 | LargeFOV) -> Tensor:
    """Zoom scores as the nets do, which is to the image where that is 8 k + 1."""
    size = tuple(OUTPUT_STRIDE * (side - 1) + 1 for side in scores.shape[-2:])
    return resize(scores, size, model.numerics)
