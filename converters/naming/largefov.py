"""The names of DeepLab LargeFOV's (VGG16) modules in every scheme: one row, one module.

Source: the prototxts of DeepLab v1 and v2, and of rloss. ``fc8_voc12`` names the label set; a
net of several parallel heads numbers them, ``fc6_1`` to ``fc8_voc12_4``; the side branches of
MSC-LargeFOV are named after what they read. The letters are explained in `scheme`.
"""

from .scheme import Naming, Values

HEAD = "classifier."

# fmt: off
TABLE = (
    # canonical                       Caffe
    ("backbone.conv{s}_{B}",          "conv{s}_{B}"),
    ("backbone.fc6.{r}",              "fc6{n}"),
    ("backbone.fc7.{r}",              "fc7{n}"),
    ("classifier.fc8.{r}",            "fc8_{t}{n}"),
    ("classifier.sides.{p}.conv",     "{p}_conv"),
    ("classifier.sides.{p}.fc",       "{p}_fc"),
    ("classifier.sides.{p}.score",    "{p}_ms"),
)

# In-place layers count: the blob ``conv1_1`` holds the value after its ReLU.
BLOBS = (
    # module                          blob
    *TABLE,
    ("backbone.pool{s}",              "pool{s}"),
    ("backbone.pool5a",               "pool5a"),
)
# fmt: on

NAMING = Naming(
    table=TABLE,
    columns={"canonical": 0, "caffe": 1},
    blobs=BLOBS,
    marks=(HEAD,),
    start_marks=("backbone.fc6.",),
    head=HEAD,
    layouts=("canonical",),
)


def context_of(branches: int, labels: str = "voc12") -> Values:
    """Return what Caffe's names hold beyond canonical ones."""
    return {"branches": branches, "labels": labels}
