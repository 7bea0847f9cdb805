"""The names of TensorFlow's DeepLab: variable scopes, a batch norm's below its convolution's.

Source: tensorflow/models research/deeplab/model.py, core/xception.py; research/slim/nets/mobilenet.
The letters are explained in `scheme`.
"""

# fmt: off
TABLE = (
    # canonical                                                scope of the variables
    ("backbone.stem.{conv|norm}",                              "MobilenetV2/Conv{|/BatchNorm}"),
    # The first block has no number.
    ("backbone.block0.depthwise.{conv|norm}",                  "MobilenetV2/expanded_conv/depthwise{|/BatchNorm}"),
    ("backbone.block0.project.{conv|norm}",                    "MobilenetV2/expanded_conv/project{|/BatchNorm}"),
    ("backbone.block{b}.expand.{conv|norm}",                   "MobilenetV2/expanded_conv_{b}/expand{|/BatchNorm}"),
    ("backbone.block{b}.depthwise.{conv|norm}",                "MobilenetV2/expanded_conv_{b}/depthwise{|/BatchNorm}"),
    ("backbone.block{b}.project.{conv|norm}",                  "MobilenetV2/expanded_conv_{b}/project{|/BatchNorm}"),

    ("backbone.stem{b}.{conv|norm}",                           "xception_65/entry_flow/conv1_{B}{|/BatchNorm}"),
    ("backbone.entry{s}.separable{r}.depthwise.{conv|norm}",   "xception_65/entry_flow/block{s}/unit_1/xception_module/separable_conv{r}_depthwise{|/BatchNorm}"),
    ("backbone.entry{s}.separable{r}.pointwise.{conv|norm}",   "xception_65/entry_flow/block{s}/unit_1/xception_module/separable_conv{r}_pointwise{|/BatchNorm}"),
    ("backbone.entry{s}.shortcut.{conv|norm}",                 "xception_65/entry_flow/block{s}/unit_1/xception_module/shortcut{|/BatchNorm}"),
    ("backbone.middle.{b}.separable{r}.depthwise.{conv|norm}", "xception_65/middle_flow/block1/unit_{B}/xception_module/separable_conv{r}_depthwise{|/BatchNorm}"),
    ("backbone.middle.{b}.separable{r}.pointwise.{conv|norm}", "xception_65/middle_flow/block1/unit_{B}/xception_module/separable_conv{r}_pointwise{|/BatchNorm}"),
    ("backbone.exit{s}.separable{r}.depthwise.{conv|norm}",    "xception_65/exit_flow/block{s}/unit_1/xception_module/separable_conv{r}_depthwise{|/BatchNorm}"),
    ("backbone.exit{s}.separable{r}.pointwise.{conv|norm}",    "xception_65/exit_flow/block{s}/unit_1/xception_module/separable_conv{r}_pointwise{|/BatchNorm}"),
    ("backbone.exit{s}.shortcut.{conv|norm}",                  "xception_65/exit_flow/block{s}/unit_1/xception_module/shortcut{|/BatchNorm}"),

    ("classifier.pyramid.pool.{conv|norm}",                    "image_pooling{|/BatchNorm}"),
    ("classifier.pyramid.branches.{r}.{conv|norm}",            "aspp{r}{|/BatchNorm}"),
    ("classifier.pyramid.branches.{r}.depthwise.{conv|norm}",  "aspp{r}_depthwise{|/BatchNorm}"),
    ("classifier.pyramid.branches.{r}.pointwise.{conv|norm}",  "aspp{r}_pointwise{|/BatchNorm}"),
    ("classifier.pyramid.project.{conv|norm}",                 "concat_projection{|/BatchNorm}"),
    ("classifier.low.{conv|norm}",                             "decoder/feature_projection0{|/BatchNorm}"),
    ("classifier.refine.{r}.depthwise.{conv|norm}",            "decoder/decoder_conv{r}_depthwise{|/BatchNorm}"),
    ("classifier.refine.{r}.pointwise.{conv|norm}",            "decoder/decoder_conv{r}_pointwise{|/BatchNorm}"),
    ("classifier.score.conv",                                  "logits/semantic"),
)
# fmt: on
