"""From files to a report: which inputs are compared at."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.errors import UsageError

Make = Callable[..., tuple[Path, Path]]


def test_a_net_whose_file_states_no_shape_is_compared_at_the_size_given(
    make_net: Make, tiny_config: DeepLabV2Config
) -> None:
    text, binary = make_net(tiny_config, 65, 97)
    stated = text.read_text()
    text.write_text(re.sub(r"input_param \{.*?\}\s*\}", "", stated, count=1, flags=re.DOTALL))
    assert text.read_text() != stated
    found = deeplab_zoo.parity(text, binary, engine="float64", sizes=[(33, 47)], exact=False)
    assert found.passed, found.verdict
    assert [(case.name, case.shape) for case in found.cases] == [("photo, 33x47", (1, 3, 33, 47))]
    with pytest.raises(UsageError, match="input 'data': its file states no shape. Give --size"):
        deeplab_zoo.parity(text, binary, engine="float64", exact=False)


def test_a_size_given_leaves_no_standard_size_to_note(
    make_net: Make, tiny_multi: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_multi, 65, 97)
    model = tmp_path / "x.safetensors"
    deeplab_zoo.convert_caffe(text, binary, model)
    found = deeplab_zoo.parity(model, model, sizes=[(65, 97)], exact=False)
    assert [case.name for case in found.cases] == ["photo, 65x97"]
    assert [note.partition(" runs ")[0] for note in found.notes] == ["no other engine"]


def test_a_picture_is_no_input_of_a_net_with_several(tmp_path: Path) -> None:
    text, binary = tmp_path / "two.prototxt", tmp_path / "two.caffemodel"
    text.write_text(
        "input: 'a' input: 'b' input_shape { dim: 1 dim: 3 dim: 5 dim: 7 } "
        "input_shape { dim: 1 dim: 3 dim: 5 dim: 7 } "
        "layer { name: 's' type: 'Eltwise' bottom: 'a' bottom: 'b' top: 's' }"
    )
    with binary.open("wb") as file:
        caffemodel.write(prototxt.read(text), file)
    with pytest.raises(UsageError, match=r"the network reads 2 inputs \(a, b\), expected one"):
        deeplab_zoo.parity(text, binary, engine="float64", sizes=[(5, 7)])
    assert deeplab_zoo.parity(text, binary, engine="float64", exact=False).passed
