"""From files to a report: which inputs are compared at."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import deeplab_zoo
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
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
