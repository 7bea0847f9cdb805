"""The names of pytorchcv's DeepLab v3, by the PyTorch that the file was saved with.

Source: pytorchcv/models/{deeplabv3,resnetd}.py. The letters are explained in `scheme`.
"""

# fmt: off
TABLE = (
    # canonical                                     in a state dict
    ("backbone.stem0.{conv|norm}",                  "backbone.init_block.conv1.{conv|bn}"),
    ("backbone.stem1.{conv|norm}",                  "backbone.init_block.conv2.{conv|bn}"),
    ("backbone.stem2.{conv|norm}",                  "backbone.init_block.conv3.{conv|bn}"),
    ("backbone.layer{s}.{b}.reduce.{conv|norm}",    "backbone.stage{s}.unit{B}.body.conv1.{conv|bn}"),
    ("backbone.layer{s}.{b}.spatial.{conv|norm}",   "backbone.stage{s}.unit{B}.body.conv2.{conv|bn}"),
    ("backbone.layer{s}.{b}.expand.{conv|norm}",    "backbone.stage{s}.unit{B}.body.conv3.{conv|bn}"),
    ("backbone.layer{s}.{b}.shortcut.{conv|norm}",  "backbone.stage{s}.unit{B}.identity_conv.{conv|bn}"),

    # The mean's is the last of the branches.
    ("classifier.pyramid.pool.{conv|norm}",         "pool.branches.branch5.conv.{conv|bn}"),
    ("classifier.pyramid.branches.{r}.{conv|norm}", "pool.branches.branch{R}.{conv|bn}"),
    ("classifier.pyramid.project.{conv|norm}",      "pool.conv.{conv|bn}"),
    ("classifier.refine.0.{conv|norm}",             "final_block.conv1.{conv|bn}"),
    ("classifier.score.conv",                       "final_block.conv2"),
    ("auxiliary.conv.{conv|norm}",                  "aux_block.conv1.{conv|bn}"),
    ("auxiliary.score.conv",                        "aux_block.conv2"),
)
# fmt: on

# Its constructor deletes the backbone's classifier, whereupon PyTorch 1.12 and later give the
# parts that are left numbers for names.
RENUMBERED = tuple(
    (
        ours,
        theirs.replace("backbone.init_block", "backbone.0").replace("backbone.stage", "backbone."),
    )
    for ours, theirs in TABLE
)
