"""Mean-field inference, against the paper's equations written out."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deeplab_zoo import DenseCRF
from deeplab_zoo.proto.errors import UsageError

NORMALIZATIONS = ("none", "before", "after", "symmetric")


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Unary (2, 4, 6, 7) and images (2, 3, 6, 7)."""
    generator = torch.Generator().manual_seed(0)
    unary = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    images = 255 * torch.rand(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    return unary.to(dtype), images


def crf(unary: Tensor, images: Tensor, compat: Any = 4.0, **options: Any) -> DenseCRF:
    normalization = options.pop("normalization", "symmetric")
    model = DenseCRF(unary, **options)
    model.add_pairwise_gaussian(2.0, 3.0, normalization)
    model.add_pairwise_bilateral((5.0, 4.0), (40.0, 50.0, 60.0), images, compat, normalization)
    return model


def kernel(features: np.ndarray, normalization: str) -> np.ndarray:
    """Equation 3 for all pairs of pixels, normalised."""
    distance = ((features[:, None] - features[None]) ** 2).sum(2)
    weights: np.ndarray = np.exp(-distance / 2)
    sums = weights.sum(1)
    if normalization == "none":
        return weights / sums.mean()
    if normalization == "before":
        return weights / sums
    if normalization == "after":
        return weights / sums[:, None]
    return weights / np.sqrt(sums * sums[:, None])


def written_out(
    unary: Tensor, image: Tensor, compat: np.ndarray, normalization: str, iterations: int
) -> np.ndarray:
    """Algorithm 1 of Krähenbühl, Koltun 2011, for one image (classes, height, width)."""
    classes, height, width = unary.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    colours = image.flatten(1).numpy()
    kernels = [
        (-3.0 * np.eye(classes), np.stack([x / 2, y / 2], 1)),
        (compat, np.column_stack([x / 5, y / 4, *(colours.T / (40, 50, 60)).T])),
    ]
    energies = unary.flatten(1).numpy()
    q = np.exp(-energies) / np.exp(-energies).sum(0)
    for _ in range(iterations):
        total = energies.copy()
        for matrix, features in kernels:
            total += matrix @ (q @ kernel(features, normalization).T)
        q = np.exp(-total) / np.exp(-total).sum(0)
    return q.reshape(classes, height, width)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("form", ["potts", "diagonal", "matrix"])
def test_with_the_exact_kernel_it_is_the_papers_algorithm(normalization: str, form: str) -> None:
    unary, images = example()
    matrix = torch.tensor([[0, 1, 2, 3], [1, 0, 4, 2], [2, 5, 0, 1], [3, 2, 2, -1.0]])
    compat = {"potts": 4.0, "diagonal": -matrix[1], "matrix": matrix}[form]
    full = {"potts": -4 * torch.eye(4), "diagonal": torch.diag(-matrix[1]), "matrix": matrix}[form]
    model = crf(unary, images, compat, backend="exact", normalization=normalization)
    found = model.inference(3)
    for i in range(2):
        expected = written_out(unary[i], images[i], full.numpy(), normalization, 3)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_fused_loop_is_the_steps_one_by_one(normalization: str, batch: int) -> None:
    unary, images = (part[:batch] for part in example(torch.float32))
    model = crf(unary, images, normalization=normalization)
    q = model.start_inference()
    for _ in range(4):
        q = model.step_inference(q)
    torch.testing.assert_close(model.inference(4), q, rtol=0, atol=1e-5)
    torch_ops = crf(unary, images, normalization=normalization, backend="torch").inference(4)
    torch.testing.assert_close(model.inference(4), torch_ops, rtol=0, atol=1e-5)
    with torch.inference_mode():
        again = crf(unary.clone(), images, normalization=normalization).inference(4)
        assert torch.equal(again, model.inference(4))


def test_costs_may_be_an_array_and_autocast_or_the_default_type_change_nothing() -> None:
    unary, images = example(torch.float32)
    costs = np.arange(16.0).reshape(4, 4) / 8
    matrix, potts = crf(unary, images, torch.from_numpy(costs)), crf(unary, images)
    expected = matrix.inference(3), potts.inference(3)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = crf(unary, images, costs).inference(3), crf(unary, images).inference(3)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_no_iteration_and_no_kernel_give_the_unarys_softmax() -> None:
    unary, images = example(torch.float32)
    torch.testing.assert_close(crf(unary, images).inference(0), (-unary).softmax(1))
    torch.testing.assert_close(DenseCRF(unary).inference(5), (-unary).softmax(1))


def test_inference_has_the_gradient_of_what_it_computes() -> None:
    unary, images = example()
    matrix = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def infer(energies: Tensor, compat: Tensor) -> Tensor:
        return crf(energies, images, compat).inference(2)

    inputs = unary.requires_grad_(), matrix.requires_grad_()
    assert torch.autograd.gradcheck(infer, inputs, fast_mode=True)


def test_the_divergence_is_the_one_that_inference_lowers() -> None:
    unary, images = example()
    model = crf(unary, images, backend="exact")
    steps = [model.start_inference()]
    for _ in range(5):
        steps.append(model.step_inference(steps[-1]))
    values = torch.stack([model.kl_divergence(q) for q in steps])
    assert values.shape == (6, 2)
    assert (values[-1] < values[0]).all()


def test_other_features_are_taken() -> None:
    unary, images = example(torch.float32)
    model, same = DenseCRF(unary), DenseCRF(unary)
    model.add_pairwise_energy(images.float().flatten(2).transpose(1, 2) / 30, 2.0)
    assert not torch.equal(model.inference(2), DenseCRF(unary).inference(2))
    same.add_pairwise_bilateral(1e9, 30.0, images, 2.0)
    torch.testing.assert_close(model.inference(2), same.inference(2), atol=0.2, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("pydensecrf") is None, reason="needs pydensecrf2")
def test_pydensecrf_gives_the_same_probabilities() -> None:
    from pydensecrf.densecrf import DenseCRF2D

    unary, images = example(torch.float32)
    whole = images.byte()
    found = crf(unary, whole).inference(5)
    for i in range(2):
        peer = DenseCRF2D(7, 6, 4)
        peer.setUnaryEnergy(unary[i].flatten(1).numpy().copy())
        peer.addPairwiseGaussian(sxy=2.0, compat=3.0)
        picture = whole[i].permute(1, 2, 0).contiguous().numpy()
        peer.addPairwiseBilateral(
            sxy=(5.0, 4.0), srgb=(40.0, 50.0, 60.0), rgbim=picture, compat=4.0
        )
        expected = np.array(peer.inference(5)).reshape(4, 6, 7)
        # It rounds in float32, and pads the pixels to fours with extra vertices.
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=0, atol=1e-2)


def test_bad_input_is_named() -> None:
    unary, images = example()
    with pytest.raises(UsageError, match=r"unary: shape \(4, 6, 7\), expected \(batch"):
        DenseCRF(unary[0])
    with pytest.raises(UsageError, match=r"unary: torch\.float16"):
        DenseCRF(unary.half())
    with pytest.raises(UsageError, match=r"unary: inf at \(image, class, y, x\) = \(1, 2, 3, 4\)"):
        DenseCRF(unary.index_put((torch.tensor(1), torch.tensor(2), torch.tensor(3), torch.tensor(4)), torch.tensor(torch.inf, dtype=torch.float64)))  # fmt: skip
    model = DenseCRF(unary)
    with pytest.raises(UsageError, match=r"images: shape .* expected \(2, channels, 6, 7\)"):
        model.add_pairwise_bilateral(3, 4, images[:, :, 1:], 1)
    with pytest.raises(UsageError, match="sigma of positions: 0, expected a positive number"):
        model.add_pairwise_gaussian(0, 1)
    with pytest.raises(UsageError, match=r"compat: shape \(3,\), expected a number"):
        model.add_pairwise_gaussian(1, torch.ones(3))
    for wrong in (torch.nan, torch.full((4,), torch.inf)):
        with pytest.raises(UsageError, match="compat: .*expected .*finite number"):
            model.add_pairwise_gaussian(1, wrong)
    with pytest.raises(UsageError, match="normalization: 'both', expected"):
        model.add_pairwise_gaussian(1, 1, "both")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"features: 41 pixels, expected 6 \* 7"):
        model.add_pairwise_energy(torch.zeros(2, 41, 3), 1)
    with pytest.raises(UsageError, match="iterations: -1"):
        model.inference(-1)
    with pytest.raises(UsageError, match="q: shape"):
        model.step_inference(unary[:1])


def test_energies_are_finite_also_where_their_sum_is_not() -> None:
    unary = torch.full((1, 2, 3, 4), 3e38)
    assert torch.equal(DenseCRF(unary).start_inference(), torch.full_like(unary, 0.5))
