"""Small nets as text, and what they become."""

from collections.abc import Mapping

import torch

from deeplab_zoo.converters.graph.build import build
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.proto import prototxt


def net_of(text: str, phase: str = "TEST", **arguments: object) -> Graph:
    return build(prototxt.parse_net(text, "net"), None, phase, **arguments)  # type: ignore[arg-type]


def one(name: str, settings: str = "", bottoms: str = "data", tops: str = "out") -> str:
    ends = [f"bottom: '{blob}'" for blob in bottoms.split()] + [
        f"top: '{blob}'" for blob in tops.split()
    ]
    return f"layer {{ name: 'l' type: '{name}' {' '.join(ends)} {settings} }}\n"


def given_input(*sizes: int, name: str = "data") -> str:
    return f"input: '{name}' input_shape {{ {' '.join(f'dim: {size}' for size in sizes)} }}\n"


def run(text: str, phase: str = "TEST", **inputs: torch.Tensor) -> Mapping[str, torch.Tensor]:
    with torch.no_grad():
        return net_of(text, phase)(inputs, blobs="all")


CHAIN = given_input(1, 2) + (
    "layer { name: 'a' type: 'Power' bottom: 'data' top: 'x' power_param { scale: 2 } }"
    "layer { name: 'b.c' type: 'Power' bottom: 'x' top: 'x' power_param { shift: 1 } }"
    "layer { name: 'd' type: 'Power' bottom: 'x' top: 'y' power_param { scale: -1 } }"
    "layer { name: 'e' type: 'ReLU' bottom: 'y' top: 'y' }"
)
