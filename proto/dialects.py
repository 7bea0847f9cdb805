"""Which field a number on the wire means, for a layer of a given type.

Caffe's forks gave the same LayerParameter numbers to different messages, so a number alone
is ambiguous: a Crop layer's ``crop_param`` read with the DeepLab fork's table is a
plausible-looking ``seg_accuracy_param``. The layer's type decides. A contested number on a
layer of any other type is reported as unknown, never guessed.
"""

from .caffe_pb2 import LayerParameter

# Layer type -> numbers that forks write -> our field.
FORKS: dict[str, dict[int, str]] = {
    # DeepLab v2 and rloss
    "Interp":              {143: "interp_param"},
    "SegAccuracy":         {144: "seg_accuracy_param"},
    "MatWrite":            {145: "mat_write_param"},
    "DenseCRF":            {146: "dense_crf_param"},
    "DomainTransform":     {147: "domain_transform_param"},
    "AdaptiveBiasChannel": {148: "adaptive_bias_channel_param"},
    "BiasChannel":         {149: "bias_channel_param"},
    "UniqueLabel":         {150: "unique_label_param"},
    "MatRead":             {151: "mat_read_param"},
    "DenseCRFLoss":        {152: "densecrf_loss_param"},
    # SegNet and ENet
    "BN":                  {45: "bn_param"},
    "DenseImageData":      {138: "dense_image_data_param", 46: "dense_image_data_param"},
    "Upsample":            {137: "upsample_param", 147: "upsample_param"},
}  # fmt: skip

# BVLC Caffe's own claim to a contested number: the types that carry it.
BVLC: dict[int, frozenset[str]] = {
    137: frozenset({"Embed"}),
    138: frozenset({"Tile"}),
    143: frozenset({"Input"}),
    144: frozenset({"Crop"}),
    145: frozenset({"Parameter"}),
    146: frozenset({"RNN", "LSTM", "Recurrent"}),
    147: frozenset({"Swish"}),
    148: frozenset({"Clip"}),
}

_NUMBER = {field.name: field.number for field in LayerParameter.DESCRIPTOR.fields}
_SHARED = frozenset(number for number in _NUMBER.values() if number < 10000)
_WIRE = {name: number for claims in FORKS.values() for number, name in reversed(claims.items())}


def ours(layer_type: str, number: int) -> int | None:
    """Return our number for a field of LayerParameter on the wire, None if unknown."""
    claims = FORKS.get(layer_type, {})
    if number in claims:
        return _NUMBER[claims[number]]
    if number in BVLC and layer_type not in BVLC[number]:
        return None
    return number if number in _SHARED else None


def on_the_wire(number: int) -> int:
    """Return the number that the field's owner writes: the way back of `ours`."""
    name = LayerParameter.DESCRIPTOR.fields_by_number[number].name
    return _WIRE.get(name, number)
