"""The names of DeepLab v3's and v3+'s modules: canonical ones, and where each program's are.

A module here is one of a unit's two: its convolution or its batch norm, which a row spells side
by side, ``{conv|norm}`` in one scheme and ``{0|1}`` in another.
"""

from . import jfzhang95, openmmlab, pytorchcv, tf_deeplab, torchvision
from .scheme import Naming

HEAD = "classifier."
AUXILIARY = "auxiliary."

# Layouts of a state dict that a program wrote, and their tables: canonical name, its own name.
# What stands before a hyphen is the style's name.
PROGRAMS = {
    "jfzhang95": jfzhang95.TABLE,
    "torchvision": torchvision.TABLE,
    "openmmlab": openmmlab.TABLE,
    "pytorchcv": pytorchcv.TABLE,
    "pytorchcv-renumbered": pytorchcv.RENUMBERED,
}
LAYOUTS = ("canonical", *PROGRAMS)

# Names of a checkpoint's variables, which no state dict has.
VARIABLES = {"tensorflow": tf_deeplab.TABLE}
TABLES = {**PROGRAMS, **VARIABLES}

NAMING = Naming(
    table=tuple((name,) for name in dict.fromkeys(row[0] for t in TABLES.values() for row in t)),
    columns={"canonical": 0},
    blobs=(),
    marks=(HEAD, AUXILIARY),
    start_marks=(),
    head=("classifier.score.", AUXILIARY),
    layouts=LAYOUTS,
    programs=TABLES,
    aliases={"jfzhang95": jfzhang95.ALIASES},
)
