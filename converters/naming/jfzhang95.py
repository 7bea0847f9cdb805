"""The names of jfzhang95/pytorch-deeplab-xception, which rloss took over: DeepLab v3+.

Source: modeling/backbone/*.py, modeling/{aspp,decoder}.py. The letters are explained in `scheme`.
"""

# fmt: off
TABLE = (
    # canonical                                     in a state dict
    ("backbone.stem0.{conv|norm}",                  "backbone.{conv|bn}1"),
    ("backbone.layer{s}.{b}.reduce.{conv|norm}",    "backbone.layer{s}.{b}.{conv|bn}1"),
    ("backbone.layer{s}.{b}.spatial.{conv|norm}",   "backbone.layer{s}.{b}.{conv|bn}2"),
    ("backbone.layer{s}.{b}.expand.{conv|norm}",    "backbone.layer{s}.{b}.{conv|bn}3"),
    ("backbone.layer{s}.{b}.shortcut.{conv|norm}",  "backbone.layer{s}.{b}.downsample.{0|1}"),

    ("classifier.pyramid.branches.{r}.{conv|norm}", "aspp.aspp{R}.{atrous_conv|bn}"),
    ("classifier.pyramid.pool.{conv|norm}",         "aspp.global_avg_pool.{1|2}"),
    ("classifier.pyramid.project.{conv|norm}",      "aspp.{conv|bn}1"),
    ("classifier.low.{conv|norm}",                  "decoder.{conv|bn}1"),
    ("classifier.refine.0.{conv|norm}",             "decoder.last_conv.{0|1}"),
    ("classifier.refine.1.{conv|norm}",             "decoder.last_conv.{4|5}"),
    ("classifier.score.conv",                       "decoder.last_conv.8"),
)
# fmt: on
