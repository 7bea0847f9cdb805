"""How an image is scored: its size, scales, mirroring and windows; and what wins.

An image enters as the network wants it; what leaves is a score per class and pixel at the
image's own size. The largest wins there: scores are resized, never class ids.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from typing import Literal

from torch import Tensor

from ...converters.numerics import Numerics
from ...proto.errors import UsageError
from ..models.inference import Network, demand_ids, photos, whole
from ..models.resampling import resize, scaled


@dataclass(frozen=True, slots=True)
class Crf:
    """Mean-field inference in a fully connected CRF on the averaged probabilities.

    The defaults are kazuto1011's, for the published ResNet-101. ``pos`` is the kernel of
    positions, ``bi`` that of positions and colours: weights, and sigmas in pixels and levels.
    """

    iterations: int = 10
    pos_w: float = 3.0
    pos_xy: float = 1.0
    bi_w: float = 4.0
    bi_xy: float = 67.0
    bi_rgb: float = 3.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        sigmas, weights = (self.pos_xy, self.bi_xy, self.bi_rgb), (self.pos_w, self.bi_w)
        if (
            self.iterations < 0
            or not all(0 < one < math.inf for one in sigmas)
            or not all(map(math.isfinite, weights))
        ):
            raise UsageError(
                f"CRF: {self}, expected iterations of 0 or more, finite weights, sigmas above 0."
            )


def crf_of(given: Mapping[str, float]) -> Crf:
    """Return the parameters with some replaced, by name; raise `UsageError` for wrong ones."""
    known = [field.name for field in fields(Crf)]
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"CRF: {', '.join(unknown)}, expected some of {', '.join(known)}.")
    iterations, *rest = ({**asdict(Crf()), **given}[name] for name in known)
    if not float(iterations).is_integer():
        raise UsageError(f"CRF: {iterations:g} iterations, expected a whole number.")
    return Crf(int(iterations), *rest)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How an image is scored; the default is the numerics profile's own way.

    Attributes
    ----------
    size
        Images are padded to at least this side, and beyond it to 32 k + 1, at the bottom and
        right with the mean colour; 0 leaves them at their size, None is the profile's.
    scales
        Of the image, on top of those that the network itself has.
    flip
        Also score the mirrored image.
    average
        What is averaged over scales, mirror images and windows.
    window
        Images with a side above this are scored in windows of it; 0 takes them whole.
    overlap
        Share of a window that its neighbour covers too, at least.
    crf
        Refine what came of all that; None does not.
    crop
        Judge a dataset on its centre crops of this side, see `augment.centre_crop`; 0 judges
        whole images at their own size.

    """

    size: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: Literal["scores", "probabilities"] = "scores"
    window: int = 0
    overlap: float = 1 / 3
    crf: Crf | None = None
    crop: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.scales or not all(0 < one < math.inf for one in self.scales):
            raise UsageError(f"scales: {self.scales}, expected numbers above 0.")
        if min(self.size or 0, self.window, self.crop) < 0:
            raise UsageError(
                f"size {self.size}, window {self.window}, crop {self.crop}: expected 0 or more."
            )
        if not 0 <= self.overlap < 1:
            raise UsageError(f"overlap: {self.overlap}, expected 0 to less than 1.")

    @property
    def gives_probabilities(self) -> bool:
        """Whether the result is probabilities and not scores."""
        return self.average == "probabilities" or self.crf is not None


def describe(protocol: Protocol, numerics: Numerics, within: Sequence[float] = (1.0,)) -> str:
    """Say it in a line, for reports: two numbers compare only if this is the same.

    ``within`` are the network's own scales.
    """

    def written(scales: Sequence[float]) -> str:
        return ", ".join(f"{scale:g}" for scale in scales)

    side = numerics.test_size if protocol.size is None else protocol.size
    parts = [f"padded to {side}" if side else "original size"]
    if protocol.crop:
        parts[0] = f"centre crop of {protocol.crop}" + (f", {parts[0]}" if side else "")
    if protocol.scales != (1.0,):
        parts.append(f"scales {written(protocol.scales)}")
    if protocol.flip:
        parts.append("mirrored too")
    if protocol.window:
        parts.append(f"windows of {protocol.window}, {protocol.overlap:.0%} shared")
    if len(parts) > 1:
        parts.append(f"{protocol.average} averaged")
    if tuple(within) != (1.0,):
        parts.insert(0, f"network of scales {written(within)}")
    if crf := protocol.crf:
        parts.append(
            f"CRF of {crf.iterations} iterations, {crf.pos_w:g} ({crf.pos_xy:g}), "
            f"{crf.bi_w:g} ({crf.bi_xy:g}, {crf.bi_rgb:g})"
        )
    return "; ".join(parts)


def score(model: Network, images: Tensor, protocol: Protocol) -> Tensor:
    """Score images of one size: (batch, 3, h, w) to float32 (batch, classes, h, w).

    ``images`` are prepared as the model's profile says. The result is scores, unless
    ``protocol.gives_probabilities``. Call it within `inference.scoring`.
    """
    if model.config.classes == 1 and protocol.gives_probabilities:
        raise UsageError("a network of one class: has scores alone, this protocol needs several.")
    mirrors = (False, True) if protocol.flip else (False,)
    views = [(scale, mirrored) for scale in protocol.scales for mirrored in mirrors]
    parts = (_view(model, images, scale, mirrored, protocol) for scale, mirrored in views)
    found = reduce(Tensor.add_, parts).div_(len(views))
    if protocol.crf is None:
        return found
    shares = found if protocol.average == "probabilities" else found.softmax(1)
    # In RGB: the lattice is not the same for axes in another order.
    return refined(shares, photos(images, model.numerics), protocol.crf)


def refined(probabilities: Tensor, pictures: Tensor, crf: Crf) -> Tensor:
    """Return the probabilities (batch, classes, h, w) after the CRF; pictures are RGB 0..255."""
    from ..crf.dense import DenseCRF  # Late: it compiles its kernels.

    inference = DenseCRF(-probabilities.float().clamp_min(1e-8).log())
    inference.add_pairwise_gaussian(crf.pos_xy, crf.pos_w)
    inference.add_pairwise_bilateral(crf.bi_xy, crf.bi_rgb, pictures, crf.bi_w)
    return inference.inference(crf.iterations)


def _view(
    model: Network, images: Tensor, scale: float, mirrored: bool, protocol: Protocol
) -> Tensor:
    x = scaled(images, scale, model.numerics)
    found = _in_windows(model, x.flip(-1) if mirrored else x, protocol)
    return resize(found.flip(-1) if mirrored else found, images.shape[-2:], model.numerics)


def _in_windows(model: Network, images: Tensor, protocol: Protocol) -> Tensor:
    batch, _, height, width = images.shape
    side = protocol.window
    if not side or max(height, width) <= side:
        return _whole(model, images, protocol)
    tall, wide = min(side, height), min(side, width)
    total = images.new_zeros(batch, model.config.classes, height, width)
    times = images.new_zeros(height, width)
    for top in starts(height, tall, protocol.overlap):
        for left in starts(width, wide, protocol.overlap):
            place = ..., slice(top, top + tall), slice(left, left + wide)
            total[place] += _whole(model, images[place], protocol)
            times[place] += 1
    return total.div_(times)


def starts(size: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin so that they cover a side, evenly, sharing at least so much."""
    step = max(1, int(window * (1 - overlap)))
    count = -(-(size - window) // step) + 1
    return [round(one * (size - window) / max(1, count - 1)) for one in range(count)]


def _whole(model: Network, images: Tensor, protocol: Protocol) -> Tensor:
    numerics = model.numerics
    if protocol.size is not None:
        numerics = replace(numerics, test_size=protocol.size)
    scores = whole(model, images, numerics)
    return scores.softmax(1) if protocol.average == "probabilities" else scores


def decide(scores: Tensor, wanted: int | None = None, *, by_sign: bool = False) -> Tensor:
    """Return the class of each pixel, uint8 (batch, h, w).

    With ``wanted`` the answer is whether a pixel is of that class: whether its score is the
    largest or, ``by_sign``, above 0, as networks trained with binary losses mean it. A single
    channel is judged by its sign.
    """
    if scores.shape[1] == 1:
        wanted, by_sign = 0, True
    if wanted is not None and by_sign:
        return (scores[:, wanted] > 0).byte()
    demand_ids("scores", scores.shape[1])
    ids = scores.argmax(1)
    return (ids if wanted is None else ids == wanted).byte()
