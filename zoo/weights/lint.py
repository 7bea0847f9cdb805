"""What a registry must keep to beyond its schema: problems as a list of lines.

With those that make an entry `unsound` no registry is loaded.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from ...converters.numerics import PROFILES
from ...proto.errors import UsageError
from .names import unsafe
from .schema import LENGTHS, Artifact, Claim, Entry, claims
from .sources import resolve

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_HEX = re.compile(r"[0-9a-f]+")


def problems(entries: Iterable[Entry]) -> list[str]:
    """List everything that is wrong with a registry's entries."""
    entries = tuple(entries)
    names = {entry.name for entry in entries}
    found: list[str] = []
    for entry in entries:
        found += unsound(entry)
        found += [f"{entry.name}: {line}" for line in _of_entry(entry, names)]
        for place, claim in claims(entry):
            found += [f"{place}: {line}" for line in _of_evidence(claim)]
        for artifact in entry.artifacts:
            place = f"{entry.name}: {artifact.filename}"
            found += [f"{place}: {line}" for line in _of_artifact(artifact, entry.place, names)]
    return found + list(_shared_digests(entries))


def unsound(entry: Entry) -> Iterator[str]:
    """Yield what would have a fetch write elsewhere, or take the right bytes for wrong ones."""
    if not _NAME.fullmatch(entry.name) or unsafe(entry.name):
        yield f"{entry.name}: name {entry.name!r}, expected a-z, 0-9, - . _ only, and no device's"
    for name in dict.fromkeys((*(one.filename for one in entry.artifacts), *entry.filenames)):
        if reason := unsafe(name):
            yield f"{entry.name}: {name!r} is no safe file name: {reason}"
    lowered = [name.lower() for name in entry.filenames]
    for name in sorted({name for name in lowered if lowered.count(name) > 1}):
        yield f"{entry.name}: two files are called {name!r}, as some systems see it"
    if entry.recipe is not None:
        for name in filter(None, (entry.recipe.weights, entry.recipe.prototxt)):
            if name not in entry.filenames:
                yield f"{entry.name}: the recipe's {name!r} is none of its files"
    for place, claim in claims(entry):
        yield from (f"{place}: {line}" for line in _of_claim(claim))


def _of_entry(entry: Entry, names: set[str]) -> Iterator[str]:
    if entry.kind != "dataset":
        for key in ("arch", "trained_on"):
            if getattr(entry, key) is None:
                yield f"a {entry.kind} without {key}"
    if entry.numerics is not None and entry.numerics not in PROFILES:
        yield f"numerics {entry.numerics!r}, expected one of {', '.join(PROFILES)}"
    if not entry.artifacts:
        yield "no artifacts"
    if not entry.license.spdx:
        yield "license without an spdx identifier; NOASSERTION where nothing is stated"
    if entry.replaced_by is not None and entry.replaced_by not in names:
        yield f"replaced_by {entry.replaced_by!r}, which is no entry"
    for metric in entry.metrics:
        if not (metric.dataset and metric.split and metric.source and metric.protocol):
            yield "a metric needs its dataset, split, protocol and source"
        if not 0 < metric.miou <= 100:
            yield f"miou {metric.miou}, expected percent"


def _of_claim(claim: Claim) -> Iterator[str]:
    if claim.size is not None and claim.size <= 0:
        yield f"size {claim.size}"
    for algorithm, digest in claim.digests.items():
        if algorithm not in LENGTHS:
            yield f"digest {algorithm!r}, expected one of {', '.join(LENGTHS)}"
        elif not _HEX.fullmatch(digest) or len(digest) != LENGTHS[algorithm]:
            yield (
                f"{algorithm} of {len(digest)} characters, expected {LENGTHS[algorithm]} "
                "lower-case hex digits"
            )
    if claim.prefix is not None:
        digits = claim.prefix.hex
        if not _HEX.fullmatch(digits) or not 6 <= len(digits) < LENGTHS[claim.prefix.algorithm]:
            yield f"prefix {digits!r}, expected 6 or more lower-case hex digits, less than all"
        whole = claim.digests.get(claim.prefix.algorithm, digits)
        if not whole.startswith(digits):
            yield f"prefix {digits!r} is not how its {claim.prefix.algorithm} begins"


def _of_evidence(claim: Claim) -> Iterator[str]:
    covered = {what for evidence in claim.evidence for what in evidence.covers}
    said = (*claim.digests, *(("prefix",) if claim.prefix else ()))
    yield from (f"{what} without evidence" for what in said if what not in covered)
    for evidence in claim.evidence:
        unknown = set(evidence.covers) - {*LENGTHS, "prefix", "size", "content"}
        if unknown or not evidence.covers:
            yield f"evidence covers {sorted(unknown)}, expected digests, prefix, size or content"
        if (evidence.grade == "D") != ("content" in evidence.covers):
            yield "grade D is for content, and content for grade D"
        if not evidence.where:
            yield "evidence does not say where"


def _of_artifact(artifact: Artifact, registry: str, names: set[str]) -> Iterator[str]:
    for member in artifact.members:
        if reason := unsafe(member.path, folders=True):
            yield f"member {member.path!r} is no safe path: {reason}"
    paths = [member.path for member in artifact.members]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield f"member {path!r} is listed twice"
    tree = artifact.archive.tree if artifact.archive else None
    if tree is not None and (artifact.members or not re.fullmatch("[0-9a-f]{64}", tree)):
        yield f"tree {tree!r}, expected a sha256 of all there is, and no members"
    if artifact.same_as is not None and artifact.same_as not in names:
        yield f"same_as {artifact.same_as!r}, which is no entry"
    if not artifact.sources and not artifact.manual:
        yield "neither a source nor a page to get it from by hand"
    for source in artifact.sources:
        try:
            address = resolve(source.url, registry)
        except UsageError as error:
            yield str(error)
            continue
        if urlsplit(address).scheme == "http" and artifact.claim.state != "pinned":
            yield f"{source.url}: plain http without a sha256 or sha384 of the file"


def _shared_digests(entries: Iterable[Entry]) -> Iterator[str]:
    """Find one digest under two names: mostly a row copied and half edited."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for entry in entries:
        if entry.uses:
            continue
        for artifact in entry.artifacts:
            for claim in (artifact.claim, *(member.claim for member in artifact.members)):
                for digest in claim.digests.items():
                    known = seen.setdefault(digest, (entry.name, artifact.filename))
                    here = (entry.name, artifact.filename)
                    if known != here and known[0] != artifact.same_as:
                        yield (
                            f"{entry.name}: {artifact.filename}: has the {digest[0]} of "
                            f"{known[0]}: {known[1]}; declare same_as if that is so"
                        )
