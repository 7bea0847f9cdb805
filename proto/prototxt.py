"""Caffe's text networks: a ``.prototxt`` becomes a `Net`, and back."""

from pathlib import Path

from . import upgrade
from .caffe_pb2 import NetParameter
from .errors import FormatError, listing
from .records import Net
from .source import read_text
from .textformat import format_message, parse


def read(path: Path, *, strict: bool = True) -> Net:
    """Read a network from a text file; see `parse_net` for ``strict`` and the errors."""
    return parse_net(read_text(path, "a Caffe prototxt (text)"), str(path), strict=strict)


def parse_net(text: str, place: str, *, strict: bool = True) -> Net:
    """Read a network from text; ``place`` begins every complaint.

    With ``strict``, fields that ``caffe.proto`` does not have are one error that lists
    them all; without, they are listed in `Net.unknown` and passed over.

    Raises
    ------
    FormatError
        Not the text format, or not a network; with line and column.

    """
    message = NetParameter()
    parsed = parse(text, message, place)
    if strict and parsed.unknown:
        raise FormatError(
            f"{place}: {len(parsed.unknown)} unknown fields, expected those of Caffe, its "
            f"DeepLab, SegNet and SSD forks:\n{listing(parsed.unknown)}\n"
            "They may change what the network computes. To list them and go on: --lenient."
        )
    if not message.layer and not message.layers:
        raise FormatError(f"{place}: no layers, expected a Caffe network.")
    return upgrade.net(message, parsed.lines, parsed.unknown, place)


def format_net(net: Net) -> str:
    """Write a network as text: today's field names, one layer after the other, no blobs.

    Equal networks give equal text, whatever the protobuf version.
    """
    header = NetParameter(name=net.name)
    if net.stages:
        header.state.stage.extend(net.stages)
    lines = [*format_message(header)]
    for layer in net.layers:
        lines += ["layer {", *format_message(layer.params, 1), "}"]
    return "\n".join(lines) + "\n"
