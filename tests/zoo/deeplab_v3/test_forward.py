"""The forward of each program, stated again by the names of its own state dict."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from deeplab_zoo.zoo.models.resampling import resize

from .programs import NARROW, Make, State, model_of, narrow

Names = Callable[[str], tuple[str, str]]  # Of a part of a block: its convolution, its norm.


def convolve(state: State, name: str, x: Tensor, **how: int) -> Tensor:
    weight = state[f"{name}.weight"]
    groups = x.shape[1] if weight.shape[1] == 1 < x.shape[1] else 1
    return functional.conv2d(x, weight, state.get(f"{name}.bias"), groups=groups, **how)


def normalise(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean, variance, gamma, beta = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + eps) * gamma + beta


def unit(state: State, names: tuple[str, str], x: Tensor, **how: int) -> Tensor:
    return functional.relu(normalise(state, names[1], convolve(state, names[0], x, **how)))


def stages(state: State, spell: Callable[[int, int], Names], x: Tensor) -> list[Tensor]:
    """Run a ResNet's stages of 3, 4, 6, 3 blocks, the last two dilated for stride."""
    found = []
    stated = ((3, 1, (1, 1)), (4, 2, (1, 1)), (6, 1, (1, 2)), (3, 1, (2, 4)))
    for stage, (blocks, stride, rates) in enumerate(stated, 1):
        for block in range(blocks):
            names, step, rate = spell(stage, block), 1 if block else stride, rates[block > 0]
            y = unit(state, names("1"), x)
            y = unit(state, names("2"), y, stride=step, padding=rate, dilation=rate)
            conv, norm = names("3")
            y = normalise(state, norm, convolve(state, conv, y))
            conv, norm = names("shortcut")
            if f"{conv}.weight" in state:
                x = normalise(state, norm, convolve(state, conv, x, stride=step))
            x = functional.relu(x + y)
        found.append(x)
    return found


def torch_names(stage: int, block: int) -> Names:
    at = f"backbone.layer{stage}.{block}."
    short = f"{at}downsample.0", f"{at}downsample.1"
    return lambda part: short if part == "shortcut" else (f"{at}conv{part}", f"{at}bn{part}")


def deep_stem(state: State, names: list[tuple[str, str]], x: Tensor) -> Tensor:
    for index, both in enumerate(names):
        x = unit(state, both, x, stride=1 if index else 2, padding=1)
    return functional.max_pool2d(x, 3, 2, 1)


def mean(x: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(x, 1)


def mobilenet(state: State, x: Tensor) -> Tensor:
    def hardswish(y: Tensor) -> Tensor:
        return y * functional.relu6(y + 3) / 6

    def step(name: str, y: Tensor, **how: int) -> Tensor:
        return normalise(state, f"{name}.1", convolve(state, f"{name}.0", y, **how), 1e-3)

    x = hardswish(step("backbone.0", x, stride=2, padding=1))
    for index in range(1, 16):
        act = functional.relu if index < 7 else hardswish
        stride, rate = 2 if index in (2, 4, 7) else 1, 2 if index >= 13 else 1
        at = f"backbone.{index}.block"
        parts = sorted({int(k.split(".")[3]) for k in state if k.startswith(f"{at}.")})
        excited = f"{at}.2.fc1.weight" in state
        y = x
        for part in parts[: -3 if excited else -2]:
            y = act(step(f"{at}.{part}", y))
        spatial = f"{at}.{parts[-3 if excited else -2]}"
        pad = rate * (state[f"{spatial}.0.weight"].shape[-1] // 2)
        y = act(step(spatial, y, stride=stride, padding=pad, dilation=rate))
        if excited:
            weigh = convolve(
                state, f"{at}.2.fc2", functional.relu(convolve(state, f"{at}.2.fc1", mean(y)))
            )
            y = y * functional.relu6(weigh + 3) / 6
        y = step(f"{at}.{parts[-1]}", y)
        x = x + y if stride == 1 and x.shape[1] == y.shape[1] else y
    return hardswish(step("backbone.16", x))


def of_torchvision(state: State, image: Tensor) -> Tensor:
    if "backbone.conv1.weight" in state:
        x = unit(state, ("backbone.conv1", "backbone.bn1"), image, stride=2, padding=3)
        x = stages(state, torch_names, functional.max_pool2d(x, 3, 2, 1))[-1]
    else:
        x = mobilenet(state, image)
    at = "classifier.0.convs"
    seen = [unit(state, (f"{at}.0.0", f"{at}.0.1"), x)]
    for index, rate in enumerate((12, 24, 36), 1):
        names = f"{at}.{index}.0", f"{at}.{index}.1"
        seen.append(unit(state, names, x, padding=rate, dilation=rate))
    pooled = unit(state, (f"{at}.4.1", f"{at}.4.2"), mean(x))
    seen.append(functional.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False))
    x = unit(state, ("classifier.0.project.0", "classifier.0.project.1"), torch.cat(seen, 1))
    x = unit(state, ("classifier.1", "classifier.2"), x, padding=1)
    x = convolve(state, "classifier.4", x)
    return functional.interpolate(x, image.shape[2:], mode="bilinear", align_corners=False)


def of_openmmlab(state: State, image: Tensor) -> Tensor:
    def step(name: str, y: Tensor, rate: int = 0) -> Tensor:
        """A 1x1 convolution at rate 0, else a 3x3, in two steps where the names say so."""
        how = {"padding": rate, "dilation": rate} if rate else {}
        if f"{name}.conv.weight" in state:
            return unit(state, (f"{name}.conv", f"{name}.bn"), y, **how)
        return step(f"{name}.pointwise_conv", step(f"{name}.depthwise_conv", y, rate))

    stem = [(f"backbone.stem.{index}", f"backbone.stem.{index + 1}") for index in (0, 3, 6)]
    low, _, _, x = stages(state, torch_names, deep_stem(state, stem, image))
    pooled = step("decode_head.image_pool.1", mean(x))
    seen = [functional.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False)]
    seen += [step(f"decode_head.aspp_modules.{i}", x, r) for i, r in enumerate((0, 12, 24, 36))]
    x = step("decode_head.bottleneck", torch.cat(seen, 1), 1)
    if "decode_head.c1_bottleneck.conv.weight" in state:
        early = step("decode_head.c1_bottleneck", low)
        x = functional.interpolate(x, early.shape[2:], mode="bilinear", align_corners=False)
        x = step("decode_head.sep_bottleneck.0", torch.cat([x, early], 1), 1)
        x = step("decode_head.sep_bottleneck.1", x, 1)
    x = convolve(state, "decode_head.conv_seg", x)
    return functional.interpolate(x, image.shape[2:], mode="bilinear", align_corners=False)


def of_pytorchcv(state: State, image: Tensor) -> Tensor:
    old = "backbone.init_block.conv1.conv.weight" in state

    def both(name: str) -> tuple[str, str]:
        return f"{name}.conv", f"{name}.bn"

    def names(stage: int, block: int) -> Names:
        at = f"backbone.{'stage' if old else ''}{stage}.unit{block + 1}."
        return lambda part: both(
            at + ("identity_conv" if part == "shortcut" else f"body.conv{part}")
        )

    first = "backbone.init_block" if old else "backbone.0"
    stem = [both(f"{first}.conv{index}") for index in (1, 2, 3)]
    x = stages(state, names, deep_stem(state, stem, image))[-1]
    at = "pool.branches.branch"
    seen = [unit(state, both(f"{at}1"), x)]
    for index, rate in enumerate((12, 24, 36), 2):
        seen.append(unit(state, both(f"{at}{index}"), x, padding=rate, dilation=rate))
    pooled = unit(state, both(f"{at}5.conv"), mean(x))
    seen.append(functional.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=True))
    x = unit(state, both("pool.conv"), torch.cat(seen, 1))
    x = unit(state, both("final_block.conv1"), x, padding=1)
    x = convolve(state, "final_block.conv2", x)
    return functional.interpolate(x, image.shape[2:], mode="bilinear", align_corners=True)


FORWARD = {
    "torchvision": of_torchvision,
    "openmmlab": of_openmmlab,
    "pytorchcv": of_pytorchcv,
    "pytorchcv-renumbered": of_pytorchcv,
}


@pytest.mark.parametrize("name", NARROW)
def test_scores_are_those_of_the_forward_stated_again(
    program_state: Make, tmp_path: Path, name: str
) -> None:
    config, layout = narrow(name)
    state = program_state(config, layout, seed=1)
    model, _ = model_of(state, tmp_path)
    # So wide that a branch at rate 36 sees more than one column.
    image = torch.randn(2, 3, 25, 309, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = FORWARD[layout](state, image)
        found = resize(model(image), image.shape[2:], model.numerics)
    assert expected.std() > 0.01
    assert (found - expected).norm() <= 1e-5 * expected.norm()
