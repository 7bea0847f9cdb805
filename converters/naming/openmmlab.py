"""The names of OpenMMLab's DeepLab v3 and v3+ (mmsegmentation 0.5 to 1.2).

Source: mmseg/models/{backbones/resnet,decode_heads/aspp_head,decode_heads/sep_aspp_head}.py.
The letters are explained in `scheme`.
"""

# fmt: off
TABLE = (
    # canonical                                               in a state dict
    ("backbone.stem0.{conv|norm}",                            "backbone.stem.{0|1}"),
    ("backbone.stem1.{conv|norm}",                            "backbone.stem.{3|4}"),
    ("backbone.stem2.{conv|norm}",                            "backbone.stem.{6|7}"),
    ("backbone.layer{s}.{b}.reduce.{conv|norm}",              "backbone.layer{s}.{b}.{conv|bn}1"),
    ("backbone.layer{s}.{b}.spatial.{conv|norm}",             "backbone.layer{s}.{b}.{conv|bn}2"),
    ("backbone.layer{s}.{b}.expand.{conv|norm}",              "backbone.layer{s}.{b}.{conv|bn}3"),
    ("backbone.layer{s}.{b}.shortcut.{conv|norm}",            "backbone.layer{s}.{b}.downsample.{0|1}"),

    ("classifier.pyramid.pool.{conv|norm}",                   "decode_head.image_pool.1.{conv|bn}"),
    ("classifier.pyramid.branches.{r}.{conv|norm}",           "decode_head.aspp_modules.{r}.{conv|bn}"),
    ("classifier.pyramid.branches.{r}.depthwise.{conv|norm}", "decode_head.aspp_modules.{r}.depthwise_conv.{conv|bn}"),
    ("classifier.pyramid.branches.{r}.pointwise.{conv|norm}", "decode_head.aspp_modules.{r}.pointwise_conv.{conv|bn}"),
    ("classifier.pyramid.project.{conv|norm}",                "decode_head.bottleneck.{conv|bn}"),
    ("classifier.low.{conv|norm}",                            "decode_head.c1_bottleneck.{conv|bn}"),
    ("classifier.refine.{b}.depthwise.{conv|norm}",           "decode_head.sep_bottleneck.{b}.depthwise_conv.{conv|bn}"),
    ("classifier.refine.{b}.pointwise.{conv|norm}",           "decode_head.sep_bottleneck.{b}.pointwise_conv.{conv|bn}"),
    ("classifier.score.conv",                                 "decode_head.conv_seg"),
    ("auxiliary.conv.{conv|norm}",                            "auxiliary_head.convs.0.{conv|bn}"),
    ("auxiliary.score.conv",                                  "auxiliary_head.conv_seg"),
)
# fmt: on
