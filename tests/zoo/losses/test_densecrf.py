"""The DenseCRF loss against its double sum, and against how rloss's program composes it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deeplab_zoo import DenseCRFLoss, PermutohedralLattice
from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.lattice.features import bilateral_features
from deeplab_zoo.zoo.losses.densecrf import rois_from_images, rois_from_labels
from deeplab_zoo.zoo.losses.heatmap import gradient_heatmap, gradient_maps


def example(height: int = 10, width: int = 14) -> tuple[Tensor, Tensor, Tensor]:
    """Images, logits in float64, regions with a padded border."""
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(2, 3, height, width, generator=generator)
    logits = torch.randn(2, 4, height, width, generator=generator, dtype=torch.float64)
    rois = torch.ones(2, height, width)
    rois[0, :, -3:] = 0
    rois[1, -2:] = 0
    return images, logits, rois


def crf_loss(**options: Any) -> DenseCRFLoss:
    given = {"weight": 2e-3, "sigma_rgb": 40.0, "sigma_xy": 8.0, "scale_factor": 0.5}
    return DenseCRFLoss(**{**given, **options})  # type: ignore[arg-type]


def pairs(images: Tensor, sigma_xy: float, sigma_rgb: float) -> Tensor:
    """The kernel between all pixels, (batch, pixels, pixels)."""
    points = bilateral_features(images, sigma_xy, sigma_rgb).double()
    return (-(points[:, :, None] - points[:, None]).square().sum(3) / 2).exp()


@pytest.mark.parametrize("normalisation", ["none", "pixel"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_with_the_exact_kernel_it_is_the_double_sum(normalisation: str, scale: float) -> None:
    images, logits, rois = example()
    probabilities = logits.softmax(1)
    options = {"normalisation": normalisation, "scale_factor": scale, "backend": "exact"}
    found = crf_loss(**options)(images, probabilities, rois)

    step = int(1 / scale)
    small = (
        F.interpolate(probabilities, scale_factor=scale, mode="bilinear")
        if step > 1
        else probabilities
    )
    region = rois[:, None, ::step, ::step].flatten(2).transpose(1, 2).double()
    kernel = pairs(images[:, :, ::step, ::step], 8.0 * scale, 40.0)
    inside = small.flatten(2).transpose(1, 2) * region
    near = kernel @ inside
    if normalisation == "pixel":
        near = near / (kernel @ region)
    # The exact kernel's images are float32.
    assert float(found) == pytest.approx(-2e-3 * float((inside * near).sum()) / 2, rel=1e-6)
    assert float(found) < 0


@pytest.mark.parametrize("backend", ["numba", "torch", "exact"])
@pytest.mark.parametrize("normalisation", ["none", "pixel"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_the_true_gradient_is_that_of_the_value(
    backend: str, normalisation: str, from_logits: bool
) -> None:
    images, logits, rois = example(6, 8)
    given = logits if from_logits else logits.softmax(1)
    loss = crf_loss(backend=backend, normalisation=normalisation, from_logits=from_logits, weight=1)

    def value(segmentations: Tensor) -> Tensor:
        return loss(images, segmentations, rois)

    assert torch.autograd.gradcheck(value, given.requires_grad_(), fast_mode=True)


def test_the_original_gradient_is_twice_one_filter_and_not_that_of_the_value() -> None:
    images, logits, rois = example()
    probabilities = logits.softmax(1)

    def gradient(form: str) -> Tensor:
        loss = crf_loss(gradient=form, scale_factor=1.0)
        return gradient_maps(lambda s: loss(images, s, rois), probabilities)

    original, true = gradient("original"), gradient("true")
    region = rois[:, None].double()
    inside = (probabilities * region).flatten(2).transpose(1, 2)
    lattice = PermutohedralLattice(bilateral_features(images, 8.0, 40.0))
    near = lattice.filter(inside).transpose(1, 2).reshape(probabilities.shape)
    torch.testing.assert_close(original, -2 * 2e-3 / 2 * near * region)
    assert not torch.allclose(original, true, rtol=1e-3)
    assert not original[rois[:, None].expand_as(original) == 0].any()


def test_the_value_does_not_depend_on_the_form_of_the_gradient() -> None:
    images, logits, rois = example()
    for normalisation in ("none", "pixel"):
        values = [
            crf_loss(gradient=form, normalisation=normalisation, from_logits=True)(
                images, logits, rois
            )
            for form in ("true", "original")
        ]
        torch.testing.assert_close(values[0], values[1])


def test_without_regions_everything_is_inside() -> None:
    images, logits, _ = example()
    loss = crf_loss(from_logits=True)
    everywhere = torch.ones(2, 10, 14)
    torch.testing.assert_close(loss(images, logits), loss(images, logits, everywhere))


def test_the_arguments_are_left_as_they_are() -> None:
    images, logits, rois = example()
    before = images.clone(), logits.clone(), rois.clone()
    crf_loss(from_logits=True)(images, logits, rois)
    assert rois.shape == (2, 10, 14)
    for given, kept in zip((images, logits, rois), before, strict=True):
        assert torch.equal(given, kept)


def test_pixel_normalisation_bounds_the_value_by_the_pixels() -> None:
    images, logits, rois = example()
    loss = crf_loss(normalisation="pixel", weight=1.0, backend="exact")
    labels = F.one_hot(torch.zeros(2, 10, 14, dtype=torch.long), 4).movedim(3, 1).double()
    small = rois[:, ::2, ::2]
    assert float(loss(images, labels, rois)) == pytest.approx(-float(small.sum()) / 2, rel=1e-6)
    assert float(loss(images, logits.softmax(1), rois)) > float(loss(images, labels, rois))


def test_half_precision_is_computed_in_float32() -> None:
    images, logits, rois = example()
    half = logits.bfloat16().requires_grad_()
    loss = crf_loss(from_logits=True)
    found = loss(images.byte(), half, rois)
    expected = loss(images.byte(), logits.bfloat16().double(), rois)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)
    found.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("normalisation", ["none", "pixel"])
def test_second_derivatives_are_true_too(normalisation: str) -> None:
    images, logits, rois = example(6, 8)
    loss = crf_loss(from_logits=True, normalisation=normalisation, weight=1.0)

    def value(segmentations: Tensor) -> Tensor:
        return loss(images, segmentations, rois)

    assert torch.autograd.gradgradcheck(value, logits.requires_grad_(), fast_mode=True)


def test_regions_follow_both_ancestors() -> None:
    labels = torch.tensor([[[0, 254, 255], [7, 254, 1]]])
    assert rois_from_labels(labels).tolist() == [[[1, 0, 1], [1, 0, 1]]]
    images = torch.zeros(1, 3, 1, 4)
    images[0, :, 0] = torch.tensor([[0, 0.99, 0, -1.0], [0, -0.99, 0, 0], [0, 0.5, 3, 0]])
    assert rois_from_images(images).tolist() == [[[0, 0, 1, 1]]]


def test_heat_maps_are_the_gradient_and_its_length() -> None:
    images, logits, rois = example()
    probabilities = logits.softmax(1)
    loss = crf_loss()
    leaf = probabilities.clone().requires_grad_()
    loss(images, leaf, rois).backward()
    with torch.no_grad():  # as at inference
        maps = gradient_maps(lambda s: loss(images, s, rois), probabilities)
        lengths = gradient_heatmap(lambda s: loss(images, s, rois), probabilities)
    torch.testing.assert_close(maps, leaf.grad)
    torch.testing.assert_close(lengths, maps.square().sum(1).sqrt())
    assert lengths.shape == (2, 10, 14)
    with torch.inference_mode():
        again = gradient_maps(lambda s: loss(images, s), probabilities.clone())
    assert again.shape == maps.shape


def test_bad_input_is_named() -> None:
    images, logits, rois = example()
    loss = crf_loss(from_logits=True)
    with pytest.raises(UsageError, match=r"segmentations: shape \(4, 10, 14\)"):
        loss(images, logits[0], rois)
    with pytest.raises(UsageError, match="torch.int64, expected a floating type"):
        loss(images, logits.long(), rois)
    with pytest.raises(UsageError, match=r"(?s)images: shape .*\nrois: shape .*\(2, 10, 14\)"):
        loss(images[:, :, 1:], logits, rois[:1])
    with pytest.raises(UsageError, match="scale_factor: 0.05 leaves nothing of 10x14"):
        crf_loss(scale_factor=0.05)(images, logits)
    with pytest.raises(UsageError, match=r"rois: 255 at .* = \(1, 2, 3\), expected 0 or 1"):
        loss(images, logits, rois.index_put(torch.tensor([1, 2, 3]).unbind(), rois.new_tensor(255)))
    images[1, 2, 3, 4] = float("nan")
    with pytest.raises(UsageError, match=r"images: nan at .* = \(1, 2, 3, 4\)"):
        loss(images, logits, rois)
    images, logits, rois = example()
    logits[0, 1, 2, 3] = float("nan")
    with pytest.raises(UsageError, match=r"segmentations: nan at .* = \(0, 1, 2, 3\)"):
        loss(images, logits, rois)
    for options, words in (
        ({"gradient": "half"}, "gradient: 'half'"),
        ({"normalisation": "mean"}, "normalisation: 'mean'"),
        ({"weight": float("nan")}, "weight: nan, expected a finite number"),
        ({"scale_factor": 0.0}, "scale_factor: 0.0, expected more than 0"),
    ):
        with pytest.raises(UsageError, match=words):
            crf_loss(**options)


def test_it_prints_its_parameters() -> None:
    assert "weight=0.002, sigma_rgb=40.0, sigma_xy=8.0, scale_factor=0.5" in repr(crf_loss())
