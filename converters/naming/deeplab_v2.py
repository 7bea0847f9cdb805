"""The names of DeepLab v2 ResNet's modules in every scheme: one row, one module.

In a state dict a module's name is followed by ``.weight``, ``.bias``, ``.running_mean`` or
``.running_var``; in Caffe the rows are layers. The letters are explained in `scheme`.
"""

from collections.abc import Mapping, Sequence

from .families import foreign
from .scheme import Value, Values, read, write

# fmt: off
TABLE = (
    # canonical                              Caffe                     kazuto1011
    ("backbone.conv1",                       "conv1{x}",               "base.layer1.conv1.conv"),
    ("backbone.bn1",                         "bn_conv1{x}",            "base.layer1.conv1.bn"),
    ("backbone.layer{s}.{b}.conv1",          "res{S}{L}_branch2a{x}",  "base.layer{S}.block{B}.reduce.conv"),
    ("backbone.layer{s}.{b}.bn1",            "bn{S}{L}_branch2a{x}",   "base.layer{S}.block{B}.reduce.bn"),
    ("backbone.layer{s}.{b}.conv2",          "res{S}{L}_branch2b{x}",  "base.layer{S}.block{B}.conv3x3.conv"),
    ("backbone.layer{s}.{b}.bn2",            "bn{S}{L}_branch2b{x}",   "base.layer{S}.block{B}.conv3x3.bn"),
    ("backbone.layer{s}.{b}.conv3",          "res{S}{L}_branch2c{x}",  "base.layer{S}.block{B}.increase.conv"),
    ("backbone.layer{s}.{b}.bn3",            "bn{S}{L}_branch2c{x}",   "base.layer{S}.block{B}.increase.bn"),
    ("backbone.layer{s}.{b}.downsample.0",   "res{S}{L}_branch1{x}",   "base.layer{S}.block{B}.shortcut.conv"),
    ("backbone.layer{s}.{b}.downsample.1",   "bn{S}{L}_branch1{x}",    "base.layer{S}.block{B}.shortcut.bn"),
    ("classifier.convs.{r}",                 "fc1_{t}{x}_c{r}",        "base.aspp.c{r}"),
)
COLUMN = {"canonical": 0, "caffe": 1, "kazuto1011": 2}

# Layouts that are the canonical names with other beginnings.
PREFIXES = {
    "isht7":      (("backbone.", "Scale."), ("classifier.convs.", "Scale.layer5.conv2d_list.")),
    "advsemiseg": (("backbone.", ""),       ("classifier.convs.", "layer5.conv2d_list.")),
}

# Blobs of the Caffe net and the modules whose output they are. In-place layers count: the
# blob ``res2a_branch2a`` holds the value after its ReLU.
BLOBS = (
    # module                                 blob
    ("backbone.relu",                        "conv1{x}"),
    ("backbone.maxpool",                     "pool1{x}"),
    ("backbone.layer{s}.{b}.relu1",          "res{S}{L}_branch2a{x}"),
    ("backbone.layer{s}.{b}.relu2",          "res{S}{L}_branch2b{x}"),
    ("backbone.layer{s}.{b}.bn3",            "res{S}{L}_branch2c{x}"),
    ("backbone.layer{s}.{b}.downsample",     "res{S}{L}_branch1{x}"),
    ("backbone.layer{s}.{b}",                "res{S}{L}{x}"),
    ("classifier.convs.{r}",                 "fc1_{t}{x}_c{r}"),
    ("classifier",                           "fc1_{t}{x}"),
)
# fmt: on

# Layouts of a state dict.
LAYOUTS = ("canonical", "isht7", "kazuto1011", "advsemiseg")

# What the layouts hold beside parameters, and why it is left behind.
DROPPED = {"num_batches_tracked": "a training counter, without effect on a frozen statistic"}

HEAD = "classifier."

# The scale of a multi-scale branch, by the suffix of its Caffe layers.
SCALES = {"": 1.0, "_res075": 0.75, "_res05": 0.5}


def to_canonical(scheme: str, module: str) -> tuple[str, Values] | None:
    """Return a module's canonical name and the values in its name; None if not ours."""
    for template, ours in _templates(scheme):
        values = read(template, module)
        if values is not None:
            return write(ours, values), values
    return None


def from_canonical(scheme: str, module: str, context: Mapping[str, Value]) -> str:
    """Return a canonical module's name in another scheme; ``context``: see `context_of`."""
    for template, ours in _templates(scheme):
        values = read(ours, module)
        if values is not None:
            return _spelled(template, values, context)
    raise KeyError(module)


def blob_of(module: str, context: Mapping[str, Value]) -> str | None:
    """Return the Caffe blob that a module's output is, None where it is none."""
    for ours, blob in BLOBS:
        values = read(ours, module)
        if values is not None:
            return _spelled(blob, values, context)
    return None


def context_of(blocks: Sequence[int], scale: float = 1.0, labels: str = "voc12") -> Values:
    """Return what Caffe's names hold beyond canonical ones: the context of the above."""
    suffix = next(suffix for suffix, known in SCALES.items() if known == scale)
    counts = {f"blocks{stage}": count for stage, count in enumerate(blocks, 1)}
    return {**counts, "scale": suffix, "labels": labels}


def layout_of(names: Sequence[str]) -> str | None:
    """Return the layout that most of a state dict's names are of, None if none is."""
    if foreign(names):
        return None
    modules = {name.rpartition(".")[0] for name in names}
    found = {
        layout: sum(to_canonical(layout, module) is not None for module in modules)
        for layout in LAYOUTS
    }
    best = max(LAYOUTS, key=found.__getitem__)
    return best if found[best] else None


def _templates(scheme: str) -> tuple[tuple[str, str], ...]:
    """Return a scheme's templates beside the canonical ones."""
    if scheme in COLUMN:
        return tuple((row[COLUMN[scheme]], row[0]) for row in TABLE)
    return tuple(
        (beginning + row[0].removeprefix(ours), row[0])
        for row in TABLE
        for ours, beginning in PREFIXES[scheme]
        if row[0].startswith(ours)
    )


def _spelled(template: str, values: Values, context: Mapping[str, Value]) -> str:
    blocks = context.get(f"blocks{values.get('stage')}", 0)
    return write(template, {**context, **values, "blocks": blocks})
