"""The names of torchvision's DeepLab v3.

Source: torchvision/models/segmentation/deeplabv3.py. The letters are explained in `scheme`.
"""

# fmt: off
TABLE = (
    # canonical                                     in a state dict
    ("backbone.stem0.{conv|norm}",                  "backbone.{conv|bn}1"),
    ("backbone.layer{s}.{b}.reduce.{conv|norm}",    "backbone.layer{s}.{b}.{conv|bn}1"),
    ("backbone.layer{s}.{b}.spatial.{conv|norm}",   "backbone.layer{s}.{b}.{conv|bn}2"),
    ("backbone.layer{s}.{b}.expand.{conv|norm}",    "backbone.layer{s}.{b}.{conv|bn}3"),
    ("backbone.layer{s}.{b}.shortcut.{conv|norm}",  "backbone.layer{s}.{b}.downsample.{0|1}"),

    # MobileNetV3: the first block does not expand, the next ones named here do not excite.
    ("backbone.stem.{conv|norm}",                   "backbone.0.{0|1}"),
    ("backbone.block1.depthwise.{conv|norm}",       "backbone.1.block.0.{0|1}"),
    ("backbone.block1.project.{conv|norm}",         "backbone.1.block.1.{0|1}"),
    ("backbone.block2.project.{conv|norm}",         "backbone.2.block.2.{0|1}"),
    ("backbone.block3.project.{conv|norm}",         "backbone.3.block.2.{0|1}"),
    ("backbone.block7.project.{conv|norm}",         "backbone.7.block.2.{0|1}"),
    ("backbone.block8.project.{conv|norm}",         "backbone.8.block.2.{0|1}"),
    ("backbone.block9.project.{conv|norm}",         "backbone.9.block.2.{0|1}"),
    ("backbone.block10.project.{conv|norm}",        "backbone.10.block.2.{0|1}"),
    ("backbone.block{b}.expand.{conv|norm}",        "backbone.{b}.block.0.{0|1}"),
    ("backbone.block{b}.depthwise.{conv|norm}",     "backbone.{b}.block.1.{0|1}"),
    ("backbone.block{b}.excite.squeeze.conv",       "backbone.{b}.block.2.fc1"),
    ("backbone.block{b}.excite.expand.conv",        "backbone.{b}.block.2.fc2"),
    ("backbone.block{b}.project.{conv|norm}",       "backbone.{b}.block.3.{0|1}"),
    ("backbone.last.{conv|norm}",                   "backbone.16.{0|1}"),

    # The mean's is the last of the branches, so it is looked for before them.
    ("classifier.pyramid.pool.{conv|norm}",         "classifier.0.convs.4.{1|2}"),
    ("classifier.pyramid.branches.{r}.{conv|norm}", "classifier.0.convs.{r}.{0|1}"),
    ("classifier.pyramid.project.{conv|norm}",      "classifier.0.project.{0|1}"),
    ("classifier.refine.0.{conv|norm}",             "classifier.{1|2}"),
    ("classifier.score.conv",                       "classifier.4"),
    ("auxiliary.conv.{conv|norm}",                  "aux_classifier.{0|1}"),
    ("auxiliary.score.conv",                        "aux_classifier.4"),
)
# fmt: on
