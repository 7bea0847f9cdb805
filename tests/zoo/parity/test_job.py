"""From files to a report: which inputs are compared at."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab_zoo
from deeplab_zoo.converters import architectures, graph_file, weights
from deeplab_zoo.converters.architectures import config_of
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.files import digests
from deeplab_zoo.converters.numerics import profile
from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.errors import MismatchError, UsageError

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
    deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.h5")
    found = deeplab_zoo.parity(model, tmp_path / "x.h5", sizes=[(65, 97)], exact=False)
    assert [case.name for case in found.cases] == ["photo, 65x97"]
    assert [note.partition(" runs ")[0] for note in found.notes] == ["no other engine"]


def test_a_picture_is_no_input_of_a_net_with_several(spell: Make) -> None:
    shape = "input_shape { dim: 1 dim: 3 dim: 5 dim: 7 } "
    files = spell(
        "layer { name: 's' type: 'Eltwise' bottom: 'a' bottom: 'b' top: 's' }",
        f"input: 'a' input: 'b' {shape} {shape}",
    )
    with pytest.raises(UsageError, match=r"the network reads 2 inputs \(a, b\), expected one"):
        deeplab_zoo.parity(*files, engine="float64", sizes=[(5, 7)])
    found = deeplab_zoo.parity(*files, engine="float64", exact=False)
    assert found.passed
    assert found.cases[0].blobs == ["s"]  # The inputs are both sides' own.


def test_a_net_that_reads_nothing_is_told(spell: Make) -> None:
    files = spell(
        "layer { name: 'r' type: 'ReLU' bottom: 'd' top: 'r' }",
        "layer { name: 'd' type: 'DummyData' top: 'd' dummy_data_param { shape { dim: 2 } } }",
    )
    with pytest.raises(UsageError, match="the network reads no input"):
        deeplab_zoo.parity(*files, engine="float64")


def test_the_authors_net_for_testing_is_a_source_whatever_its_image_is_called(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_config, 65, 97)
    deeplab_zoo.convert_caffe(text, binary, tmp_path / "x.safetensors")
    stated = prototxt.read(text)
    rest = prototxt.format_net(replace(stated, layers=stated.layers[1:]))
    text.write_text(
        "layer { name: 'in' type: 'ImageSegData' top: 'image' top: 'label' top: 'data_dim' } "
        + rest.replace('"data"', '"image"')
        + "layer { name: 'mat' type: 'MatWrite' bottom: 'fc1_interp' } "
        "layer { name: 'none' type: 'Silence' bottom: 'label' bottom: 'data_dim' }"
    )
    found = deeplab_zoo.parity(
        tmp_path / "x.safetensors", text, binary, engine="float64", sizes=[(17, 19)], exact=False
    )
    assert found.passed, found.verdict
    assert found.cases[0].blobs[0] == "image"


def test_a_graph_that_was_converted_with_its_labels_is_compared_without(
    spell: Make, tmp_path: Path
) -> None:
    files = spell(
        "layer { name: 'r' type: 'ReLU' bottom: 'data' top: 'r' }"
        "layer { name: 'none' type: 'Silence' bottom: 'size' }",
        "layer { name: 'd' type: 'ImageSegData' top: 'data' top: 'label' top: 'size' }",
    )
    graph_file.write(graph_file.of_caffe(*files), tmp_path / "x.safetensors")
    found = deeplab_zoo.parity(
        tmp_path / "x.safetensors", *files, engine="float64", sizes=[(5, 7)], exact=False
    )
    assert found.passed, found.verdict
    assert found.outputs == ("r",)


def test_a_net_that_caffe_never_had_is_refused(tmp_path: Path) -> None:
    config = config_of("deeplabv3plus-mobilenet")
    drawn = architectures.drawn(replace(config, classes=3), 0, profile("jfzhang95"))
    for name in ("x.safetensors", "x.pth"):
        weights.write(drawn, tmp_path / name)
    with pytest.raises(MismatchError, match="v3.: Caffe never had it, and parity compares"):
        deeplab_zoo.parity(tmp_path / "x.safetensors", tmp_path / "x.pth")


def test_scores_under_another_name_are_no_proof(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_config, 65, 97)
    model = tmp_path / "x.safetensors"
    deeplab_zoo.convert_caffe(text, binary, model)
    text.write_text(text.read_text().replace('"fc1_voc12"', '"mine"'))
    found = deeplab_zoo.parity(model, text, binary, engine="float64", sizes=[(17, 19)], exact=False)
    assert not found.passed
    assert found.unproven == ("the output fc1_voc12 was not compared",)
    assert "mine" in found.uncompared


def test_a_graph_is_not_held_against_its_own_weights(spell: Make) -> None:
    files = spell(
        "layer { name: 'c' type: 'Convolution' bottom: 'data' top: 'c' convolution_param { "
        "num_output: 2 kernel_size: 3 weight_filler { type: 'xavier' } } }"
    )
    found = deeplab_zoo.parity(*files, engine="float64", exact=False)
    assert found.passed
    assert found.weights is None
    assert found.verdict.startswith("PASS: 4 of 4 blobs at 2 inputs within 1e-05 of our own")
    assert found.notes == ("layer 'c' (line 1): not in the weights, filled",)


def test_a_model_is_not_its_own_source_nor_lost_among_equal_names(
    make_net: Make, tiny_config: DeepLabV2Config, tmp_path: Path
) -> None:
    text, binary = make_net(tiny_config, 33, 47)
    model, other = tmp_path / "x.h5", tmp_path / "other" / "x.h5"
    deeplab_zoo.convert_caffe(text, binary, model)
    other.parent.mkdir()
    other.write_bytes(model.read_bytes())
    with pytest.raises(UsageError, match=r"x\.h5: is its own source"):
        deeplab_zoo.parity(model, other)
    assert list(digests([model, other, text])) == [str(model), str(other), "net.prototxt"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"engine": "opencv"}, "engine opencv: the reference is x.npz"),
        ({"sizes": [(5, 7)]}, "x.npz: holds the input too. Leave out --size and --image"),
        ({"images": ["x.png"]}, "x.npz: holds the input too"),
    ],
)
def test_options_that_a_recorded_reference_has_no_use_for_are_refused(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        deeplab_zoo.parity("x.safetensors", recorded_blobs="x.npz", **options)
    with pytest.raises(UsageError, match=r"x\.onnx and x\.npz: two references"):
        deeplab_zoo.parity("x.safetensors", "x.onnx", recorded_blobs="x.npz")


def test_an_input_that_a_layer_overwrites_is_exact_from_what_was_given(
    spell: Make, tmp_path: Path
) -> None:
    files = spell(
        "layer { name: 'p' type: 'Power' bottom: 'data' top: 'data' power_param { scale: 3 } }"
        "layer { name: 'q' type: 'Power' bottom: 'data' top: 'q' power_param { scale: 3 } }"
    )
    found = deeplab_zoo.parity(*files, engine="float64")
    assert found.passed
    assert found.cases[0].blobs == ["data", "q"]
    assert all((one.ours_exact or 0) < 1e-6 for one in found.cases[0].comparisons)
    data = np.random.default_rng(0).normal(0, 1, (1, 3, 9, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", data=data, q=9 * data)
    found = deeplab_zoo.parity(*files, recorded_blobs=tmp_path / "x.npz")
    assert found.passed, found.verdict
    assert found.cases[0].blobs == ["q"]
