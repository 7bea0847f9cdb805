"""The names of DeepLab v2 ResNet's modules in every scheme: one row, one module.

In a state dict a module's name is followed by ``.weight``, ``.bias``, ``.running_mean`` or
``.running_var``; in Caffe the rows are layers. The letters are explained in `scheme`.
"""

from collections.abc import Sequence

from ...proto.errors import MismatchError
from .scheme import Naming, Values

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

HEAD = "classifier."

# The scale of a multi-scale branch, by the suffix of its Caffe layers.
SCALES = {"": 1.0, "_res075": 0.75, "_res05": 0.5}


NAMING = Naming(
    table=TABLE,
    columns=COLUMN,
    blobs=BLOBS,
    marks=("backbone.layer", HEAD),
    start_marks=(),
    head=HEAD,
    layouts=LAYOUTS,
    prefixes=PREFIXES,
)
to_canonical, from_canonical = NAMING.to_canonical, NAMING.from_canonical
blob_of = NAMING.blob_of


def context_of(blocks: Sequence[int], scale: float = 1.0, labels: str = "voc12") -> Values:
    """Return what Caffe's names hold beyond canonical ones: the context of the above."""
    suffix = next((suffix for suffix, known in SCALES.items() if known == scale), None)
    if suffix is None:
        known = ", ".join(map(str, SCALES.values()))
        raise MismatchError(f"the scale {scale}: Caffe's net has the scales {known} only.")
    counts = {f"blocks{stage}": count for stage, count in enumerate(blocks, 1)}
    return {**counts, "scale": suffix, "labels": labels}
