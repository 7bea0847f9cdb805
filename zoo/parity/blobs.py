"""Every blob of a Caffe DeepLab v2, as the native model computes it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...converters.naming.deeplab_v2 import blob_of, context_of
from ..models.deeplab_v2 import DeepLabV2
from ..models.resampling import resize, scaled


@torch.inference_mode()
def activations(model: DeepLabV2, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run the model and return its activations under Caffe's blob names.

    ``image`` is the prepared input (batch, 3, h, w). A blob has the value that Caffe leaves
    in it after the forward pass, in-place layers applied.
    """
    recorded: dict[str, list[Tensor]] = {}

    def record(name: str, output: Tensor) -> None:
        recorded.setdefault(name, []).append(output)

    hooks = []
    for name, module in model.named_modules():
        if blob_of(name, context_of(model.config.blocks)) is not None:

            def hook(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                record(name, output)

            hooks.append(module.register_forward_hook(hook))
    x = torch.from_numpy(image).to(next(model.parameters()))
    try:
        fused = model.eval()(x)
    finally:
        for handle in hooks:
            handle.remove()
    found = {"data": x}
    size = recorded["classifier"][0].shape[-2:]
    for index, scale in enumerate(model.config.scales):
        context = context_of(model.config.blocks, scale)
        for name, outputs in recorded.items():
            found[str(blob_of(name, context))] = outputs[index]
        if scale != 1:
            found[f"data{context['scale']}"] = scaled(x, scale, model.numerics)
            scores = str(blob_of("classifier", context))
            found[f"{scores}_interp"] = resize(found[scores], size, model.numerics)
    if len(model.config.scales) > 1:
        found["fc_fusion"] = fused
    zoomed = 8 * (size[0] - 1) + 1, 8 * (size[1] - 1) + 1
    found["fc1_interp"] = resize(fused, zoomed, model.numerics)
    return {name: value.float().cpu().numpy() for name, value in found.items()}
