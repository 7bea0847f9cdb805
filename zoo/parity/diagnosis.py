"""Why two engines part: the layer where they do, run under every other known convention.

Enters: the original as its source states it, and both sides' blobs. The layers between the
last blobs that agree and the first that does not are computed again from each side's own
values, as stated and with one convention changed at a time. The change that makes the result
that side's is what that side does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from ...converters.numerics import PROFILES, Numerics
from ..models.inference import prepare
from .conventions import Stated, Variation, compute, stated, variations
from .engine import Arrays
from .original import Original

LOCAL = 1e-5  # Relative L2 of one layer computed twice from the same values.


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found at the first blob that differs.

    Attributes
    ----------
    blob, layer
        Where; the layer is the one whose convention differs, or the last that writes the blob.
    convention
        The profile's field or layer's parameter; None where no known one explains it.
    stated, ours, reference
        Its value in the source, on our side, on the reference's.
    also
        Other layers where our side does the same.
    tried
        How many variations were computed.
    sentence
        All that in words.

    """

    blob: str
    layer: str
    convention: str | None
    stated: str
    ours: str
    reference: str
    also: tuple[str, ...]
    tried: int
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class _Site:
    """The layers from known blobs to one blob, in order, and every variation of one of them."""

    blob: str
    layers: tuple[Stated, ...]
    variations: tuple[Variation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """How one side's blob follows from its own bottoms: not at all, as stated, or varied."""

    fits: bool
    variation: Variation | None

    def value(self, cause: Variation) -> str:
        """Return the side's value of a convention."""
        if self.variation:
            return self.variation.value
        return cause.stated if self.fits else "something else"


def diagnose(
    original: Original,
    ours: Arrays,
    reference: Arrays,
    blob: str,
    picture: NDArray[np.uint8] | None = None,
) -> Diagnosis:
    """Find the convention that parts two sides at ``blob``, the first that differs.

    ``picture`` is what the input blob was prepared from, where it was.
    """
    if blob in original.graph.inputs:
        return _of_input(original.numerics, ours, reference, blob, picture)
    sites = _sites(original, set(ours) & set(reference))
    site = next(one for one in sites if one.blob == blob)
    ways = [_explain(site, values) for values in (ours, reference)]
    cause = next((way.variation for way in ways if way.variation), None)
    if cause is None:
        return _unexplained(site, *(way.fits for way in ways))
    sides = [way.value(cause) for way in ways]
    also = tuple(_others(sites, site, ways[0].variation, ours)) if ways[0].variation else ()
    sentence = (
        f"Layer {cause.layer.name!r} ({cause.layer.type}): {cause.convention} is {sides[0]} on "
        f"our side and {sides[1]} in the reference; the source states {cause.stated}."
    )
    if sides[1] == cause.stated:
        sentence += " Computed as stated, the layer gives the reference's values."
    if also:
        sentence += f" {len(also)} other layers are the same."
    return Diagnosis(
        blob,
        cause.layer.name,
        cause.convention,
        cause.stated,
        sides[0],
        sides[1],
        also,
        len(site.variations),
        sentence,
    )


def of_weights(names: Sequence[str]) -> Diagnosis:
    """Say what is known where weights differ by too little to show in any blob."""
    sentence = (
        f"No blob shows it, but {len(names)} tensors are not the source's "
        f"({', '.join(names[:3])}): no known convention explains it."
    )
    return Diagnosis("", names[0], None, "", "", "", (), 0, sentence)


def _of_input(
    numerics: Numerics,
    ours: Arrays,
    reference: Arrays,
    blob: str,
    picture: NDArray[np.uint8] | None,
) -> Diagnosis:
    """Tell which profile's preparation each side's input is."""
    tried = 0
    found = []
    for value in (ours[blob], reference[blob]):
        for field, other in chain([("", numerics)], _other_preparations(numerics)):
            tried += 1
            if picture is not None and _close(prepare(picture, other).numpy(), value):
                found.append((field, other))
                break
    if len(found) < 2 or not any(field for field, _ in found):
        sentence = f"The input {blob!r} differs; no known convention explains it."
        return Diagnosis(blob, blob, None, "", "", "", (), tried, sentence)
    field = found[0][0] or found[1][0]
    known, mine, theirs = (
        str(getattr(one, field) if hasattr(one, field) else one.name)
        for one in (numerics, found[0][1], found[1][1])
    )
    sentence = (
        f"The input {blob!r}: {field} is {mine} on our side and {theirs} in the reference; the "
        f"source states {known}."
    )
    return Diagnosis(blob, blob, field, known, mine, theirs, (), tried, sentence)


def _other_preparations(numerics: Numerics) -> Iterator[tuple[str, Numerics]]:
    for field in ("channel_order", "mean"):
        for value in dict.fromkeys(getattr(profile, field) for profile in PROFILES.values()):
            yield field, replace(numerics, **{field: value})
    for profile in PROFILES.values():
        yield "profile", profile


def _sites(original: Original, known: set[str]) -> list[_Site]:
    """Cut the network into stretches between known blobs, one for each known blob."""
    steps = stated(original.graph, original.numerics)
    rates = sorted({
        rate for one in steps for rate in one.layer.params.convolution_param.dilation
    })  # fmt: skip
    writers: dict[str, list[int]] = {}
    needs: dict[int, set[int]] = {}  # Steps that each step needs computed before it.
    found = []
    final = {top: index for index, one in enumerate(steps) for top in one.layer.tops}
    for index, one in enumerate(steps):
        needed: set[int] = set()
        for bottom in one.layer.bottoms:
            whole = bottom in known and index > final.get(bottom, -1)
            if not whole and writers.get(bottom):
                last = writers[bottom][-1]
                needed |= {last, *needs[last]}
        needs[index] = needed
        for top in one.layer.tops:
            writers.setdefault(top, []).append(index)
        if any(top in known and final[top] == index for top in one.layer.tops):
            stretch = tuple(steps[at] for at in sorted({*needed, index}))
            varied = tuple(
                variation
                for step in stretch
                for variation in variations(step, original.factors.get(step.layer.name), rates)
            )
            found += [
                _Site(top, stretch, varied)
                for top in one.layer.tops
                if top in known and final[top] == index
            ]
    return found


def _explain(site: _Site, values: Arrays) -> _Way:
    """Find how a side's blob follows from its own bottoms: as stated, or with one variation."""
    if _fits(site, values, None):
        return _Way(True, None)
    found = next((one for one in site.variations if _fits(site, values, one)), None)
    return _Way(found is not None, found)


def _others(sites: Sequence[_Site], here: _Site, cause: Variation, values: Arrays) -> Iterator[str]:
    """Yield the other layers that do the same on a side."""
    for site in sites:
        alike = [
            one
            for one in site.variations
            if (one.convention, one.value) == (cause.convention, cause.value)
        ]
        if site is not here and alike and not _fits(site, values, None):
            yield from (one.layer.name for one in alike if _fits(site, values, one))


@torch.inference_mode()
def _fits(site: _Site, values: Arrays, variation: Variation | None) -> bool:
    """Tell whether a blob follows from the blobs before it, with one layer varied or none."""
    held: dict[str, torch.Tensor] = {}

    def value(blob: str) -> torch.Tensor:
        return held[blob] if blob in held else torch.from_numpy(np.asarray(values[blob]))

    for one in site.layers:
        chosen = variation.varied if variation and variation.layer.name == one.layer.name else one
        like = value(one.target) if one.target and one.target in {*held, *values} else None
        try:
            tops = compute(chosen, [value(bottom) for bottom in one.layer.bottoms], like)
        except RuntimeError:  # A variation may not fit the sizes.
            return False
        held.update(zip(one.layer.tops, tops, strict=True))
    return _close(held[site.blob].numpy(), values[site.blob])


def _close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    if found.shape != expected.shape:
        return False
    distance = np.linalg.norm(found.astype(np.float64).ravel() - expected.ravel())
    return bool(distance <= LOCAL * np.linalg.norm(expected.ravel().astype(np.float64)))


def _unexplained(site: _Site, ours: bool, reference: bool) -> Diagnosis:
    """Say that nothing known explains it, and which side does what the source states."""
    said = {
        (False, True): "The reference's values follow from the source's weights and settings, "
        "ours do not: look at the layer's weights.",
        (True, False): "Ours follow from the source's weights and settings, the reference's do "
        "not.",
        (True, True): "Each side's values follow from its own inputs; they parted before.",
        (False, False): "Neither side's values follow from the source's weights and settings.",
    }[ours, reference]
    layer = site.layers[0].layer.name
    sentence = f"Blob {site.blob!r}, layer {layer!r}: no known convention explains it. {said}"
    return Diagnosis(site.blob, layer, None, "", "", "", (), len(site.variations), sentence)
