from pathlib import Path

import pytest

from deeplab_zoo.proto import prototxt
from deeplab_zoo.proto.errors import FormatError, ZooError
from deeplab_zoo.proto.records import Net

V2 = ("fmt_input_shape", "fmt_input_shape_list", "fmt_input_layer")


def outline(net: Net) -> list[tuple[object, ...]]:
    """What a layer computes, without the fields that only training reads."""
    rows = []
    for layer in net.layers:
        params = type(layer.params)()
        params.CopyFrom(layer.params)
        for field in ("param", "phase", "include"):
            params.ClearField(field)
        rows.append((layer.name, layer.type, layer.bottoms, layer.tops, params))
    return rows


@pytest.fixture
def reference(golden: Path) -> Net:
    return prototxt.read(golden / "caffe" / "fmt_input_dim.prototxt")


@pytest.mark.parametrize("name", V2)
def test_every_way_to_write_a_net_gives_the_same_layers(
    golden: Path, name: str, reference: Net
) -> None:
    assert outline(prototxt.read(golden / "caffe" / f"{name}.prototxt")) == outline(reference)


def test_odd_spellings_give_the_same_layers(golden: Path, reference: Net) -> None:
    odd = prototxt.read(golden / "caffe" / "fmt_text_quirks.prototxt")
    assert [row[:4] for row in outline(odd)] == [row[:4] for row in outline(reference)]


@pytest.mark.parametrize("age", ["v0", "v1"])
def test_an_old_net_becomes_what_caffes_own_upgrade_tool_makes_of_it(
    golden: Path, age: str
) -> None:
    ours = prototxt.read(golden / "caffe" / f"fmt_{age}.prototxt")
    caffes = prototxt.read(golden / "caffe" / f"fmt_{age}_upgraded.prototxt")
    assert outline(ours) == outline(caffes)


@pytest.mark.parametrize("age", ["v0", "v1"])
def test_learning_rates_of_old_nets_are_kept_per_blob(golden: Path, age: str) -> None:
    def rates(net: Net) -> list[list[tuple[str, float, float]]]:
        return [[(p.name, p.lr_mult, p.decay_mult) for p in one.params.param] for one in net.layers]

    ours = prototxt.read(golden / "caffe" / f"fmt_{age}.prototxt")
    caffes = prototxt.read(golden / "caffe" / f"fmt_{age}_upgraded.prototxt")
    assert rates(ours) == rates(caffes)


def test_layers_know_their_lines(reference: Net, golden: Path) -> None:
    lines = (golden / "caffe" / "fmt_input_dim.prototxt").read_text().splitlines()
    for layer in reference.layers[1:]:
        assert layer.line is not None
        assert "layer" in lines[layer.line - 1]


def test_a_net_written_as_text_reads_back_the_same(golden: Path) -> None:
    for path in sorted((golden / "caffe").glob("*.prototxt")):
        net = prototxt.read(path)
        again = prototxt.parse_net(prototxt.format_net(net), "again")
        assert outline(again) == outline(net), path.name


def test_unknown_fields_are_an_error_and_listed_when_lenient(golden: Path) -> None:
    path = golden / "caffe" / "rejects" / "unknown_field.prototxt"
    with pytest.raises(FormatError, match=r"unknown_field.prototxt:7:16: ReLUParameter has no"):
        prototxt.read(path)
    net = prototxt.read(path, strict=False)
    assert len(net.unknown) == 1
    assert "ReLUParameter has no field 'slope'" in net.unknown[0]


def test_a_message_given_twice_is_refused_as_caffe_does(golden: Path) -> None:
    with pytest.raises(FormatError, match="singular_twice.prototxt:7:.*convolution_param"):
        prototxt.read(golden / "caffe" / "rejects" / "singular_twice.prototxt")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\x00\x01\x02", "is a binary file, expected a Caffe prototxt"),
        (b"name: 'n'", "no layers, expected a Caffe network"),
        (b"<!DOCTYPE html><html>", "is a web page.*fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"name: '\xff'", "byte 7 is not UTF-8"),
        (b"input: 'a' input_dim: 1 layer { name: 'x' type: 'ReLU' }", "1 input_dim for 1 inputs"),
        (b"layers { layer { name: 'x' type: 'warp' } }", "type 'warp', expected one of the V0"),
        (b"layers { name: 'a' } layer { name: 'b' }", "both `layer` and `layers`"),
        (
            b"layers { layer { name: 'p' type: 'padding' } top: 'x' }",
            r"'p': a padding layer of \[\]",
        ),
        (
            b"layers { layer { name: 'p' type: 'padding' } bottom: 'a' top: 'b' }"
            b"layers { layer { name: 'q' type: 'padding' } bottom: 'b' top: 'c' }",
            r"'q': a padding layer of \['b'\] to \['c'\], expected .* not padded yet",
        ),
    ],
)
def test_what_is_no_network_is_refused_with_a_reason(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=complaint):
        prototxt.read(path)


def test_layers_may_come_as_a_list() -> None:
    text = "layer { name: 'a' }\nlayer: [{ name: 'b' }, { name: 'c' }]\nlayer { name: 'd' }"
    layers = prototxt.parse_net(text, "net").layers
    assert [(one.name, one.line) for one in layers] == [("a", 1), ("b", 2), ("c", 2), ("d", 3)]
