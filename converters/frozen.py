"""A frozen graph to what its checkpoint would give: variables, and the settings that it shows.

Enters: a `FrozenGraph`. Leaves: its weights as variables, the constants left behind, and, since
operations tell what variables do not, output stride and rates. Graphs of TensorFlow's DeepLab
are held against the model: every convolution must dilate as ours does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..proto.errors import MismatchError, listing
from ..proto.frozen_graph import FrozenGraph
from .deeplab_v3 import DeepLabV3Config, dilations
from .family import Config, Settings
from .naming.deeplab_v3 import HEAD, NAMING
from .naming.scheme import read
from .tensorflow import ROLES, Stored, scope_of

CONSTANT = "a constant of the computation, not a variable"
BRANCH = HEAD + "pyramid.branches.{r}.depthwise.conv"


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a graph gave; ``rates`` are the dilations of its layers, by their names."""

    variables: Mapping[str, Stored]
    dropped: tuple[tuple[str, str], ...]
    rates: Mapping[str, int]


def read_graph(graph: FrozenGraph) -> Frozen:
    """Take a graph's constants that were variables.

    Raises
    ------
    MismatchError
        The graph is quantised, or its batch norms are folded into the convolutions.

    """
    fake = sorted(op for op in graph.operations if "FakeQuant" in op or "Quantize" in op)
    if fake:
        raise MismatchError(
            f"{graph.path}: a quantised graph ({', '.join(fake)}), expected one of floats. "
            "Convert the checkpoint it was exported from."
        )
    kept = {
        name: Stored(one.dtype, one.shape, one.read)
        for name, one in graph.constants.items()
        if "/" in name and name.rpartition("/")[2] in ROLES
    }
    if not any(name.endswith("/moving_variance") for name in kept):
        raise MismatchError(
            f"{graph.path}: {len(kept)} weights and no batch norm among {len(graph.constants)} "
            "constants: they are folded into the convolutions, or it is no frozen graph of a "
            "DeepLab. Convert the checkpoint it was exported from."
        )
    scope = scope_of(kept)
    layers = {name.rpartition("/")[0] for name in kept}
    rates: dict[str, int] = {}
    for node, rate in graph.dilations.items():
        if (layer := _layer(node, layers)) is not None:
            rates[layer.removeprefix(scope)] = rate
    dropped = tuple((name, CONSTANT) for name in graph.constants if name not in kept)
    return Frozen(kept, dropped, rates)


def _layer(node: str, layers: set[str]) -> str | None:
    """Return the layer that an operation is of: the scope it stands in."""
    while node and node not in layers:
        node = node.rpartition("/")[0]
    return node or None


def settings(rates: Mapping[str, int]) -> Settings:
    """Return output stride and rates of TensorFlow's DeepLab, by what its layers dilate."""
    modules = _modules(rates)
    branches = {
        int(values["rate"]): rate
        for module, rate in modules.items()
        if (values := read(BRANCH, module)) is not None
    }
    deepest = max((r for one, r in modules.items() if one.startswith("backbone.")), default=1)
    return {
        "output_stride": (8.0 if deepest >= 4 else 16.0,),  # Of 32, dilation replaces the rest.
        "rates": tuple(float(branches[index]) for index in sorted(branches)),
    }


def check(rates: Mapping[str, int], config: Config) -> None:
    """Refuse a graph whose convolutions dilate otherwise than the model's."""
    found = _modules(rates)
    expected = dilations(config) if isinstance(config, DeepLabV3Config) else {}
    problems = [
        f"{name}: {found.get(name, 1)}, expected {expected.get(name, 1)}"
        for name in dict.fromkeys([*expected, *found])
        if found.get(name) != expected.get(name)
    ]
    if problems:
        raise MismatchError(
            f"{len(problems)} convolutions of the graph dilate otherwise than the model's:\n"
            f"{listing(problems)}\n"
            "Its weights would give other results in this model, so they are not converted."
        )


def _modules(rates: Mapping[str, int]) -> dict[str, int]:
    named = ((NAMING.to_canonical("tensorflow", layer), rate) for layer, rate in rates.items())
    return {known[0]: rate for known, rate in named if known is not None}
