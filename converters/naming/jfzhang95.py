"""The names of jfzhang95/pytorch-deeplab-xception, which rloss took over: DeepLab v3+.

Source: modeling/backbone/*.py, modeling/{aspp,decoder}.py. The letters are explained in `scheme`.
"""

# fmt: off
TABLE = (
    # canonical                                       in a state dict

    # ResNet, and what others have like it.
    ("backbone.stem0.{conv|norm}",                    "backbone.{conv|bn}1"),
    ("backbone.stem1.{conv|norm}",                    "backbone.{conv|bn}2"),
    ("backbone.layer{s}.{b}.reduce.{conv|norm}",      "backbone.layer{s}.{b}.{conv|bn}1"),
    ("backbone.layer{s}.{b}.spatial.{conv|norm}",     "backbone.layer{s}.{b}.{conv|bn}2"),
    ("backbone.layer{s}.{b}.expand.{conv|norm}",      "backbone.layer{s}.{b}.{conv|bn}3"),
    ("backbone.layer{s}.{b}.shortcut.{conv|norm}",    "backbone.layer{s}.{b}.downsample.{0|1}"),

    # DRN.
    ("backbone.layer{s}.{conv|norm}",                 "backbone.layer{s}.{0|1}"),

    # MobileNetV2, whose first block does not expand.
    ("backbone.stem.{conv|norm}",                     "backbone.features.0.{0|1}"),
    ("backbone.block1.depthwise.{conv|norm}",         "backbone.features.1.conv.{0|1}"),
    ("backbone.block1.project.{conv|norm}",           "backbone.features.1.conv.{3|4}"),
    ("backbone.block{b}.expand.{conv|norm}",          "backbone.features.{b}.conv.{0|1}"),
    ("backbone.block{b}.depthwise.{conv|norm}",       "backbone.features.{b}.conv.{3|4}"),
    ("backbone.block{b}.project.{conv|norm}",         "backbone.features.{b}.conv.{6|7}"),

    # Xception, whose first two blocks begin without a ReLU, which has a number there.
    ("backbone.block{e}.0.depthwise.{conv|norm}",     "backbone.block{e}.rep.0.{conv1|bn}"),
    ("backbone.block{e}.0.pointwise.{conv|norm}",     "backbone.block{e}.rep.{0.pointwise|1}"),
    ("backbone.block{e}.1.depthwise.{conv|norm}",     "backbone.block{e}.rep.3.{conv1|bn}"),
    ("backbone.block{e}.1.pointwise.{conv|norm}",     "backbone.block{e}.rep.{3.pointwise|4}"),
    ("backbone.block{e}.2.depthwise.{conv|norm}",     "backbone.block{e}.rep.6.{conv1|bn}"),
    ("backbone.block{e}.2.pointwise.{conv|norm}",     "backbone.block{e}.rep.{6.pointwise|7}"),
    ("backbone.block{b}.0.depthwise.{conv|norm}",     "backbone.block{b}.rep.1.{conv1|bn}"),
    ("backbone.block{b}.0.pointwise.{conv|norm}",     "backbone.block{b}.rep.{1.pointwise|2}"),
    ("backbone.block{b}.1.depthwise.{conv|norm}",     "backbone.block{b}.rep.4.{conv1|bn}"),
    ("backbone.block{b}.1.pointwise.{conv|norm}",     "backbone.block{b}.rep.{4.pointwise|5}"),
    ("backbone.block{b}.2.depthwise.{conv|norm}",     "backbone.block{b}.rep.7.{conv1|bn}"),
    ("backbone.block{b}.2.pointwise.{conv|norm}",     "backbone.block{b}.rep.{7.pointwise|8}"),
    ("backbone.block{b}.shortcut.{conv|norm}",        "backbone.block{b}.{skip|skipbn}"),
    ("backbone.exit{b}.depthwise.{conv|norm}",        "backbone.conv{b}.{conv1|bn}"),
    ("backbone.exit{b}.pointwise.conv",               "backbone.conv{b}.pointwise"),
    ("backbone.exit{b}.pointwise.norm",               "backbone.bn{b}"),

    ("classifier.pyramid.branches.{r}.{conv|norm}",   "aspp.aspp{R}.{atrous_conv|bn}"),
    ("classifier.pyramid.pool.{conv|norm}",           "aspp.global_avg_pool.{1|2}"),
    ("classifier.pyramid.project.{conv|norm}",        "aspp.{conv|bn}1"),
    ("classifier.low.{conv|norm}",                    "decoder.{conv|bn}1"),
    ("classifier.refine.0.{conv|norm}",               "decoder.last_conv.{0|1}"),
    ("classifier.refine.1.{conv|norm}",               "decoder.last_conv.{4|5}"),
    ("classifier.score.conv",                         "decoder.last_conv.8"),
)

# MobileNetV2's features stand in a state dict a second time, as the decoder's two inputs.
ALIASES = (
    (r"backbone\.features\.([0-3]\..*)", r"backbone.low_level_features.\1"),
    (r"backbone\.features\.(.*)",        r"backbone.high_level_features.\1"),
)
# fmt: on
