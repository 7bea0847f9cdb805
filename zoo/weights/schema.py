"""What an entry of a registry is: frozen records, and their verification states.

A state is computed from what an entry says, never written down:

    pinned      a full sha256 or sha384
    weak        a full sha1 or md5
    prefix      at least eight hex digits of a digest
    unverified  less than that
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .names import stem

Algorithm = Literal["sha256", "sha384", "sha1", "md5"]
State = Literal["pinned", "weak", "prefix", "unverified"]

# Hex digits of each algorithm.
LENGTHS = {"sha256": 64, "sha384": 96, "sha1": 40, "md5": 32}
STRONG = ("sha256", "sha384")
STATES: tuple[State, ...] = ("pinned", "weak", "prefix", "unverified")  # Best first.
CHECKED_PREFIX = 8  # Fewer digits are a hint: they are shown and prove nothing.

# Who says so. A: the file's publisher. B: a tool that enforced it on every download. B+: a
# third party, and the publisher's file name begins alike. C: one sighting. D: `compare`
# found the content equal to an independent conversion's.
Grade = Literal["A", "B", "B+", "C", "D"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a statement was read; ``covers``: digests' algorithms, prefix, size, content."""

    grade: Grade
    covers: tuple[str, ...]
    where: str
    says: str = ""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first digits of a digest, as file names carry them."""

    algorithm: Algorithm
    hex: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of a file's bytes beforehand."""

    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    prefix: Prefix | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What to hash the bytes with, to compare them."""
        return (*self.digests, *((self.prefix.algorithm,) if self.prefix else ()))

    @property
    def state(self) -> State:
        """How well the bytes are known."""
        if any(name in self.digests for name in STRONG):
            return "pinned"
        if self.digests:
            return "weak"
        if self.prefix and len(self.prefix.hex) >= CHECKED_PREFIX:
            return "prefix"
        return "unverified"


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive.

    A ``path`` without a folder is found in whatever folder it lies, if it is there once.
    """

    path: str
    filename: str
    claim: Claim = Claim()


@dataclass(frozen=True, slots=True)
class Archive:
    """How an archive is unpacked: the members listed, or, without any, everything.

    ``tree`` is the digest of all it holds (see `store.tree_digest`), whatever the archive's.
    """

    type: Literal["zip", "tar"]
    members: tuple[Member, ...] = ()
    tree: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One place to get a file from; ``dead``: since when, as somebody reported it."""

    url: str
    dead: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file to download, or an archive of several.

    ``sources`` are tried in order, dead ones last. ``manual`` is a page where a person can
    get the file. ``same_as`` names an entry that holds the same bytes on purpose.
    """

    filename: str
    claim: Claim = Claim()
    sources: tuple[Source, ...] = ()
    manual: str | None = None
    archive: Archive | None = None
    same_as: str | None = None

    @property
    def places(self) -> tuple[Source, ...]:
        """Where to get it, those that are said to be dead last."""
        return tuple(sorted(self.sources, key=lambda one: one.dead is not None))

    @property
    def members(self) -> tuple[Member, ...]:
        """The files that are taken out of it."""
        return self.archive.members if self.archive else ()

    @property
    def state(self) -> State:
        """Of the whole, or of what is in it where only that has digests."""
        inner = [claim.state for claim, _ in self.stored.values()]
        return min(self.claim.state, max(inner, key=STATES.index), key=STATES.index)

    @property
    def stored(self) -> "dict[str, tuple[Claim, Claim]]":
        """What it leaves on the disk: each file's claim, and its archive's."""
        if self.archive is None:
            return {self.filename: (self.claim, Claim())}
        if self.archive.members:
            return {one.filename: (one.claim, self.claim) for one in self.archive.members}
        tree = {"sha256": self.archive.tree} if self.archive.tree else {}
        return {stem(self.filename): (Claim(digests=tree), self.claim)}


@dataclass(frozen=True, slots=True)
class Arch:
    """The network: its family, its backbone, and what else tells it from its siblings."""

    family: str
    backbone: str
    output_stride: int | None = None
    scales: tuple[float, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """Data that the weights have seen; ``pretrained``: before that."""

    dataset: str
    split: str
    pretrained: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that somebody published; only rows of one dataset and split compare."""

    dataset: str
    split: str
    miou: float
    protocol: str
    source: str


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms: an SPDX identifier, or NOASSERTION where the publisher says nothing."""

    spdx: str
    applies_to: str = ""
    url: str = ""
    accept_required: bool = False


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the network is fed, where no numerics profile says it: (x / scale - mean) / std."""

    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the files become a model: which converter, from which file, with which options.

    ``native`` means that the file is one of ours already.
    """

    convert: Literal["caffe", "tf", "legacy", "native"]
    weights: str
    layout: str = ""
    prototxt: str | None = None
    reset_head: bool = False
    num_classes: int | None = None
    multi_scale: bool | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Weights, or a dataset. ``uses`` names the entry whose files these are."""

    name: str
    kind: Literal["model", "init", "dataset"]
    description: str
    license: Licence
    homepage: str
    aliases: tuple[str, ...] = ()
    arch: Arch | None = None
    classes: int | None = None
    trained_on: TrainedOn | None = None
    numerics: str | None = None
    preprocessing: Preprocessing | None = None
    metrics: tuple[Metric, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    uses: str | None = None
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()
    replaced_by: str | None = None
    place: str = ""  # Set by the registry: the file that holds the entry.

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is called."""
        return self.name, *self.aliases

    @property
    def owner(self) -> str:
        """The name of the entry whose files these are."""
        return self.uses or self.name

    @property
    def filenames(self) -> tuple[str, ...]:
        """What it leaves on the disk."""
        return tuple(name for one in self.artifacts for name in one.stored)

    @property
    def state(self) -> State:
        """That of the artifact that is known least."""
        return max((one.state for one in self.artifacts), key=STATES.index, default="unverified")

    @property
    def size(self) -> int | None:
        """Bytes to download, where the registry knows them."""
        sizes = [one.claim.size for one in self.artifacts]
        return None if None in sizes or not sizes else sum(one or 0 for one in sizes)


def claims(entry: Entry) -> Iterator[tuple[str, Claim]]:
    """Yield everything in an entry that may have digests, with its place."""
    for artifact in entry.artifacts:
        yield f"{entry.name}: {artifact.filename}", artifact.claim
        for member in artifact.members:
            yield f"{entry.name}: {artifact.filename}: {member.path}", member.claim
