"""What the conversion must know of an architecture: a `Family`.

A native model comes in two halves. The half without torch is here: a config, its parameters'
shapes, its computation, its names, its Caffe net. The torch module is in ``zoo/models``.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Any, Protocol, Self, TypeVar, get_args, get_origin

from ..proto.errors import MismatchError
from ..proto.records import Net
from .naming.scheme import Naming, Values
from .topology import Table

C = TypeVar("C")
Shape = tuple[int, ...]
Settings = Mapping[str, tuple[float, ...] | str]


class Config(Protocol):
    """Sizes of one model: a frozen dataclass of numbers and tuples of numbers."""

    @property
    def classes(self) -> int:
        """Score channels, background included, void not."""

    @property
    def scales(self) -> tuple[float, ...]:
        """Input scales whose scores are fused by their maximum."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""


@dataclass(frozen=True, slots=True)
class CaffeNet:
    """What a family has that Caffe's authors published.

    Attributes
    ----------
    network
        Enters the computation into a table; takes the batch norm's epsilon, and returns the
        node of the scores.
    told_by_graph
        What a graph tells that shapes do not; for the family's ``infer``.
    context
        What Caffe's names hold beyond canonical ones.
    deploy
        The Caffe net of a config for a height and a width; takes ``bn_eps``.

    """

    network: Callable[[Table, Any, float], int]
    told_by_graph: Callable[[Net], Mapping[str, Any]]
    context: Callable[[Any], Values]
    deploy: Callable[..., Net]


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture with a native model.

    Attributes
    ----------
    name, title
        In files, and in messages.
    config
        The type of its configs.
    naming
        Its modules' names in every scheme.
    parameters
        Every parameter's canonical name and shape, in the model's order.
    infer
        The config, of canonical names and shapes, and of what is told beside them.
    told_by_layout, told_by_settings
        What a layout of names, or an archive's settings, tell that shapes do not; for `infer`.
    settings
        A config's part that shapes do not show, as an archive keeps it.
    layouts
        The layouts that a config's state dict can be written in.
    summary
        A config in words.
    model
        Where the torch module is: its module in ``zoo/models`` and its name there.
    caffe
        Its Caffe net, None where there never was one.

    """

    name: str
    title: str
    config: type[Config]
    naming: Naming
    parameters: Callable[[Any], dict[str, Shape]]
    infer: Callable[..., Config]
    told_by_layout: Callable[[str], Mapping[str, Any]]
    told_by_settings: Callable[[Settings], Mapping[str, Any]]
    settings: Callable[[Any], Settings]
    layouts: Callable[[Any], tuple[str, ...]]
    summary: Callable[[Any], str]
    model: tuple[str, str]
    caffe: CaffeNet | None = None

    def context(self, config: Config) -> Values:
        """Return what another scheme's names hold beyond canonical ones."""
        return self.caffe.context(config) if self.caffe else {}


def as_json(config: Any) -> dict[str, Any]:
    """Return a config's fields as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def of_json(kind: Callable[..., C], found: Mapping[str, Any]) -> C:
    """Make a config of what `as_json` gave; raise for keys or types that are not the config's."""
    types = {one.name: one.type for one in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(found) - set(types))
    if unknown:
        raise MismatchError(f"model config: unknown keys {unknown}, expected {list(types)}.")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    wrong = [f"{name} {one!r}" for name, one in given.items() if not _fits(one, types[name])]
    if wrong:
        raise MismatchError(f"model config: {', '.join(wrong)}, expected values like {kind()}.")
    return kind(**given)


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of the type that a config's field is stated with."""
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, tuple) or (kinds[-1] is not ... and len(value) != len(kinds)):
            return False
        return all(_fits(one, kinds[0]) for one in value)
    return type(value) in ((int, float) if kind is float else (kind,))


def check_positive(**numbers: tuple[float, ...]) -> None:
    """Refuse numbers, by their fields' names, that are not above zero and finite."""
    for name, values in numbers.items():
        if not all(0 < one < inf for one in values):
            raise MismatchError(f"model config: {name} {values}, expected numbers above zero.")


def read_settings(settings: Settings, known: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Read an archive's settings, each by its function; raise for unknown ones."""
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise MismatchError(
            f"archive: unknown settings {unknown}, expected {', '.join(sorted(known))}."
        )
    try:
        return {name: known[name](values) for name, values in settings.items()}
    except (ValueError, OverflowError, LookupError, TypeError) as error:
        raise MismatchError(f"archive: settings {dict(settings)} ({error}).") from None
