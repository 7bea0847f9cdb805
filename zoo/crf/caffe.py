"""The DenseCRF layer of the DeepLab v2 fork of Caffe: scores and images become probabilities.

It differs from the paper's program in its unary, which is the raw score and no logarithm of a
probability; in its normalisation, which is after the filter only; and in its exponential.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...proto.errors import UsageError
from ..lattice.features import bilateral_features, position_features
from ..lattice.permutohedral import Backend, PermutohedralLattice
from .pairwise import Pairwise, cost, pairwise

# exp(-x) on 0..0.69, highest power first, from the layer's own table.
_SERIES = (
    -0.0001413161, 0.0013298820, -0.0083013598, 0.0416573475, -0.1666653019, 0.4999999206,
    -0.9999999995, 1.0,
)  # fmt: skip
_FLOAT_MIN = 2.0**-126


def fast_exp(x: Tensor) -> Tensor:
    """Return the layer's approximation of exp for x of at most 0; it is zero below -20.

    The argument is halved until it is at most 0.69, a polynomial is taken, and squared as often.
    """
    rest = -x
    doublings = torch.zeros_like(rest)
    for limit, halvings in ((5.52, 3), (2.76, 2), (0.69, 1), (0.69, 1)):
        above = rest > limit
        doublings += halvings * above
        rest = torch.where(above, rest / 2**halvings, rest)
    value = torch.full_like(rest, _SERIES[0])
    for factor in _SERIES[1:]:
        value = value * rest + factor
    for done in range(5):
        value = torch.where(doublings > done, value * value, value)
    return torch.where(x < -20, 0.0, value)


def caffe_dense_crf(
    scores: Tensor,
    images: Tensor,
    sizes: Tensor | None = None,
    *,
    max_iter: int = 10,
    pos_w: Sequence[float] = (),
    pos_xy_std: Sequence[float] = (),
    bi_w: Sequence[float] = (),
    bi_xy_std: Sequence[float] = (),
    bi_rgb_std: Sequence[float] = (),
    output_probability: bool = True,
    exact_exp: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Do what the layer does with ``dense_crf_param`` of the same names.

    Takes scores (batch, classes, height, width), images (batch, 3, height, width) in any offset,
    and as its ``data_dim`` blob the images' sizes (batch, 2), height and width, where they are
    padded on the right and below; outside of them the result is zero. Returns probabilities, or
    their logarithm, not below float32's least normal number's.
    """
    _check(scores, images, sizes)
    for name, *lists in (
        ("pos_w, pos_xy_std", pos_w, pos_xy_std),
        ("bi_w, bi_xy_std, bi_rgb_std", bi_w, bi_xy_std, bi_rgb_std),
    ):
        if len({len(values) for values in lists}) > 1:
            raise UsageError(f"{name}: {lists}, expected lists of one length")
    if max_iter < 0:
        raise UsageError(f"max_iter: {max_iter}, expected 0 or more")
    exponential = torch.exp if exact_exp else fast_exp
    given, scores = scores, scores.to(torch.promote_types(scores.dtype, torch.float32))
    result = torch.zeros_like(scores)
    for image in range(len(scores)):
        height, width = scores.shape[2:]
        if sizes is not None:
            real_height, real_width = sizes[image].flatten().tolist()
            height, width = int(min(height, real_height)), int(min(width, real_width))
        colours = images[image : image + 1, :, :height, :width]
        score = scores[image, :, :height, :width]
        kernels = [
            (weight, position_features(height, width, sigma, scores))
            for weight, sigma in zip(pos_w, pos_xy_std, strict=True)
        ] + [
            (weight, bilateral_features(colours, xy, rgb))
            for weight, xy, rgb in zip(bi_w, bi_xy_std, bi_rgb_std, strict=True)
        ]
        terms = [
            pairwise(PermutohedralLattice(points, backend=backend), weight, "after", scores.dtype)
            for weight, points in kernels
        ]
        q = _infer(score.flatten(1).T[None], terms, max_iter, exponential)
        result[image, :, :height, :width] = q[0].T.reshape(score.shape)
        if not output_probability:
            inside = result[image, :, :height, :width]
            inside.clamp_(min=_FLOAT_MIN).log_()
    return result.to(given.dtype)


def _infer(
    score: Tensor, terms: list[Pairwise], iterations: int, exponential: Callable[[Tensor], Tensor]
) -> Tensor:
    def normalised(energy: Tensor) -> Tensor:
        shares = exponential(energy - energy.amax(2, keepdim=True))
        return shares / shares.sum(2, keepdim=True)

    q = normalised(score)
    for _ in range(iterations):
        energy = score
        for term in terms:
            energy = energy - cost(term, q)
        q = normalised(energy)
    return q


def _check(scores: Tensor, images: Tensor, sizes: Tensor | None) -> None:
    if scores.dim() != 4 or not all(scores.shape) or not scores.is_floating_point():
        raise UsageError(
            f"scores: {scores.dtype} {tuple(scores.shape)}, expected floating (batch, classes, "
            "height, width), none of them 0"
        )
    batch, _, height, width = scores.shape
    if tuple(images.shape) != (batch, 3, height, width):
        raise UsageError(
            f"images: shape {tuple(images.shape)}, expected ({batch}, 3, {height}, {width}) as "
            "the scores"
        )
    if not scores.isfinite().all():
        place = tuple((~scores.isfinite()).nonzero()[0].tolist())
        raise UsageError(
            f"scores: {scores[place].item()} at (image, class, y, x) = {place}, expected numbers"
        )
    if sizes is None:
        return
    if sizes.numel() != 2 * batch or sizes.shape[0] != batch:
        raise UsageError(f"sizes: shape {tuple(sizes.shape)}, expected ({batch}, 2)")
    if not (sizes >= 1).all():
        raise UsageError(f"sizes: {sizes.tolist()}, expected positive heights and widths")
