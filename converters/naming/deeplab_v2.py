"""The names of DeepLab v2 ResNet's modules in every scheme: one row, one module.

``stage`` counts 1 to 4, ``block`` and ``rate`` from 0. In a state dict a module's name is
followed by ``.weight``, ``.bias``, ``.running_mean`` or ``.running_var``.
"""

from collections.abc import Mapping, Sequence

from .scheme import Value, Values, read, write

COLUMNS = ("canonical", "caffe", "isht7", "kazuto1011")

# fmt: off
TABLE = (
    # canonical                                        Caffe                                                       isht7                                                kazuto1011
    ("backbone.conv1",                                 "conv1{scale:branch}",                                      "Scale.conv1",                                       "base.layer1.conv1.conv"),
    ("backbone.bn1",                                   "bn_conv1{scale:branch}",                                   "Scale.bn1",                                         "base.layer1.conv1.bn"),
    ("backbone.layer{stage}.{block}.conv1",            "res{stage:+1}{block:letters}_branch2a{scale:branch}",      "Scale.layer{stage}.{block}.conv1",                  "base.layer{stage:+1}.block{block:+1}.reduce.conv"),
    ("backbone.layer{stage}.{block}.bn1",              "bn{stage:+1}{block:letters}_branch2a{scale:branch}",       "Scale.layer{stage}.{block}.bn1",                    "base.layer{stage:+1}.block{block:+1}.reduce.bn"),
    ("backbone.layer{stage}.{block}.conv2",            "res{stage:+1}{block:letters}_branch2b{scale:branch}",      "Scale.layer{stage}.{block}.conv2",                  "base.layer{stage:+1}.block{block:+1}.conv3x3.conv"),
    ("backbone.layer{stage}.{block}.bn2",              "bn{stage:+1}{block:letters}_branch2b{scale:branch}",       "Scale.layer{stage}.{block}.bn2",                    "base.layer{stage:+1}.block{block:+1}.conv3x3.bn"),
    ("backbone.layer{stage}.{block}.conv3",            "res{stage:+1}{block:letters}_branch2c{scale:branch}",      "Scale.layer{stage}.{block}.conv3",                  "base.layer{stage:+1}.block{block:+1}.increase.conv"),
    ("backbone.layer{stage}.{block}.bn3",              "bn{stage:+1}{block:letters}_branch2c{scale:branch}",       "Scale.layer{stage}.{block}.bn3",                    "base.layer{stage:+1}.block{block:+1}.increase.bn"),
    ("backbone.layer{stage}.{block}.downsample.0",     "res{stage:+1}{block:letters}_branch1{scale:branch}",       "Scale.layer{stage}.{block}.downsample.0",           "base.layer{stage:+1}.block{block:+1}.shortcut.conv"),
    ("backbone.layer{stage}.{block}.downsample.1",     "bn{stage:+1}{block:letters}_branch1{scale:branch}",        "Scale.layer{stage}.{block}.downsample.1",           "base.layer{stage:+1}.block{block:+1}.shortcut.bn"),
    ("classifier.convs.{rate}",                        "fc1_{labels:word}{scale:branch}_c{rate}",                  "Scale.layer5.conv2d_list.{rate}",                   "base.aspp.c{rate}"),
)
# fmt: on

# Blobs of the Caffe net and the modules whose output they are. In-place layers count: the
# blob ``res2a_branch2a`` holds the value after its ReLU.
# fmt: off
BLOBS = (
    # module                                         blob
    ("backbone.relu",                                "conv1{scale:branch}"),
    ("backbone.maxpool",                             "pool1{scale:branch}"),
    ("backbone.layer{stage}.{block}.relu1",          "res{stage:+1}{block:letters}_branch2a{scale:branch}"),
    ("backbone.layer{stage}.{block}.relu2",          "res{stage:+1}{block:letters}_branch2b{scale:branch}"),
    ("backbone.layer{stage}.{block}.bn3",            "res{stage:+1}{block:letters}_branch2c{scale:branch}"),
    ("backbone.layer{stage}.{block}.downsample",     "res{stage:+1}{block:letters}_branch1{scale:branch}"),
    ("backbone.layer{stage}.{block}",                "res{stage:+1}{block:letters}{scale:branch}"),
    ("classifier.convs.{rate}",                      "fc1_{labels:word}{scale:branch}_c{rate}"),
    ("classifier",                                   "fc1_{labels:word}{scale:branch}"),
)
# fmt: on

# Layouts of a state dict. AdvSemiSeg's names are isht7's without the prefix.
LAYOUTS = ("canonical", "isht7", "kazuto1011", "advsemiseg")

# What the layouts hold beside parameters, and why it is left behind.
DROPPED = {"num_batches_tracked": "a training counter, without effect on a frozen statistic"}

HEAD = "classifier."

# The scale of a multi-scale branch, by the suffix of its Caffe layers.
SCALES = {"": 1.0, "_res075": 0.75, "_res05": 0.5}


def _template(row: tuple[str, ...], scheme: str) -> str:
    if scheme == "advsemiseg":
        return row[COLUMNS.index("isht7")].removeprefix("Scale.")
    return row[COLUMNS.index(scheme)]


def to_canonical(scheme: str, module: str) -> tuple[str, Values] | None:
    """Return a module's canonical name and the values in its name; None if not ours."""
    for row in TABLE:
        values = read(_template(row, scheme), module)
        if values is not None:
            return write(row[0], values), values
    return None


def from_canonical(scheme: str, module: str, context: Mapping[str, Value]) -> str:
    """Return a canonical module's name in another scheme.

    ``context`` is what `context_of` returns.
    """
    for row in TABLE:
        values = read(row[0], module)
        if values is not None:
            return _spelled(_template(row, scheme), values, context)
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


def _spelled(template: str, values: Values, context: Mapping[str, Value]) -> str:
    blocks = context.get(f"blocks{values.get('stage')}", 0)
    return write(template, {**context, **values, "blocks": blocks})


def layout_of(names: list[str]) -> str | None:
    """Return the layout whose modules include most of a state dict's names."""
    modules = {name.rpartition(".")[0] for name in names}
    found = {
        layout: sum(to_canonical(layout, module) is not None for module in modules)
        for layout in LAYOUTS
    }
    best = max(LAYOUTS, key=found.__getitem__)
    return best if found[best] else None
