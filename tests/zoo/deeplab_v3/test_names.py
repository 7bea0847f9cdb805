"""Names and shapes are the originals', and state dicts come back to the bit."""

import json
from math import prod
from pathlib import Path

import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v3 import parameters

from .programs import NARROW, PROGRAMS, Make, in_layout, model_of, narrow

PUBLISHED = [  # Parameters of the torchvision's and pytorchcv's documents.
    ("torchvision-mobilenet", 11029328),
    ("torchvision-50", 42004074),
    ("torchvision-101", 60996202),
    ("openmmlab-v3", 68114570),
    ("openmmlab-v3plus", 43591418),
    ("pytorchcv", 61119978),
]


@pytest.mark.golden
@pytest.mark.parametrize("name", PROGRAMS)
def test_names_and_shapes_are_the_originals(shared: Path, name: str) -> None:
    layout, facts, config = PROGRAMS[name]
    path = shared / "facts" / "state-dicts" / f"{facts}.json"
    found = json.loads(path.read_text())
    expected = {k: tuple(v) for k, v in found["entries"].items() if k not in found["int64"]}
    assert in_layout(layout, config) == expected


@pytest.mark.parametrize(("name", "count"), PUBLISHED)
def test_a_net_has_as_many_parameters_as_its_program_says(name: str, count: int) -> None:
    shapes = parameters(PROGRAMS[name][2])
    assert sum(prod(s) for k, s in shapes.items() if ".running_" not in k) == count


@pytest.mark.parametrize("name", NARROW)
def test_a_state_dict_comes_back_to_the_bit_whether_or_not_it_is_wrapped(
    program_state: Make, tmp_path: Path, name: str
) -> None:
    config, layout = narrow(name)
    state = program_state(config, layout, counters=True)
    learned = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    for given, kept in ((state, ("state_dict",)), (learned, ())):
        model, path = model_of(given, tmp_path, kept)
        assert model.config == config
        assert model.numerics.name == config.style
        deeplab_zoo.export(path, tmp_path / "back.pth", layout=layout)
        back = torch.load(tmp_path / "back.pth")
        assert list(back) == list(in_layout(layout, config))
        assert all(torch.equal(back[k], learned[k]) for k in learned)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_full_state_dict_comes_back_to_the_bit(
    program_state: Make, tmp_path: Path, name: str
) -> None:
    layout, _, config = PROGRAMS[name]
    state = program_state(config, layout, counters=True)
    model, path = model_of(state, tmp_path)
    assert model.config == config
    deeplab_zoo.export(path, tmp_path / "back.pth", layout=layout)
    back = torch.load(tmp_path / "back.pth")
    assert all(torch.equal(back[k], state[k]) for k in in_layout(layout, config))
