import math
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from deeplab_zoo.proto.caffe_pb2 import LayerParameter, NetParameter
from deeplab_zoo.proto.errors import FormatError
from deeplab_zoo.proto.textformat import format_message, parse


def read(text: str) -> NetParameter:
    message = NetParameter()
    parse(text, message, "net")
    return message


floats = st.floats(width=32, allow_nan=False)
names = st.text(max_size=12)
layers = st.builds(
    lambda name, bottoms, weights, pads, std, pool, flag: LayerParameter(
        name=name,
        bottom=bottoms,
        loss_weight=weights,
        convolution_param={
            "pad": pads,
            "bias_term": flag,
            "weight_filler": {"type": name, "std": std},
        },
        pooling_param={"pool": pool},
    ),
    names,
    st.lists(names, max_size=3),
    st.lists(floats, max_size=3),
    st.lists(st.integers(0, 2**32 - 1), max_size=3),
    floats,
    st.integers(0, 2),
    st.booleans(),
)


@given(st.lists(layers, max_size=3))
def test_what_we_write_both_protobuf_and_we_read_back(found: list[LayerParameter]) -> None:
    net = NetParameter(name="n", layer=found)
    text = "\n".join(format_message(net))
    assert read(text) == net
    assert text_format.Parse(text, NetParameter()) == net


@given(st.lists(layers, max_size=3))
def test_what_protobuf_writes_we_read(found: list[LayerParameter]) -> None:
    net = NetParameter(name="n", layer=found)
    assert read(text_format.MessageToString(net)) == net
    assert read(text_format.MessageToString(net, as_one_line=True)) == net


def test_the_quirks_of_the_format_are_read_as_protobuf_reads_them(golden: Path) -> None:
    for path in sorted((golden / "caffe").glob("*.prototxt")):
        text = path.read_text()
        assert read(text) == text_format.Parse(text, NetParameter()), path.name


def test_numbers_have_every_spelling() -> None:
    net = read(
        "input_dim: 010 input_dim: 0x1F input_dim: - 7 layer { loss_weight: [1.5f, .5, 2.] }"
    )
    assert list(net.input_dim) == [8, 31, -7]
    assert list(net.layer[0].loss_weight) == [1.5, 0.5, 2.0]
    special = read("layer { loss_weight: inf loss_weight: -INF loss_weight: nan }").layer[0]
    assert special.loss_weight[0] == math.inf
    assert special.loss_weight[1] == -math.inf
    assert math.isnan(special.loss_weight[2])


def test_strings_know_escapes_and_join() -> None:
    text = r'''name: "a\"\x41\102" 'c\n' # comment
    input: "\303\244"'''
    net = read(text)
    assert net.name == 'a"ABc\n'
    assert net.input[0] == "ä"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name 'x'", r"net:1:6: found \"'x'\", expected ':'"),
        ("layer {\n  name: 3\n}", "net:2:9: found '3', expected a quoted string"),
        (
            "layer {\n  name: 'x'\n",
            "net:3:1: found the end of the text, expected a field name or '}'",
        ),
        ("input_dim: 1.5", "net:1:12: found '1.5', expected a whole number from -2147483648"),
        ("input_dim: 2147483648", "expected a whole number from -2147483648 to 2147483647"),
        ("input_dim: 09", "net:1:12: found '09', expected a whole number"),
        ("input_dim: " + "9" * 5000, "net:1:12: found '9+', expected a whole number"),
        ("input_dim: \u0663", "net:1:12: found '\u0663', expected a field name"),
        ("name: 'a'\nname: 'b'", "net:2:1: found 'name', expected 'name' only once"),
        (
            "layer { pooling_param { pool: MEAN } }",
            "net:1:31: found 'MEAN', expected one of MAX, AVE",
        ),
        ("layer { pooling_param { pool: 7 } }", "net:1:31: found '7', expected one of MAX, AVE"),
        ("force_backward: yes", "net:1:17: found 'yes', expected true or false"),
        ("layer: 5", "net:1:8: found '5', expected '{'"),
        ("input: ['a' 'b' 3]", "net:1:17: found '3', expected ',' or ']'"),
        ("@", "net:1:1: found '@', expected a field name"),
        ("}", "net:1:1: found '}', expected a field name"),
        ("name: 'unfinished", "net:1:7: found"),
        (r"name: '\377'", "net:1:7: .*expected a string in UTF-8"),
        ("layer { clip_param { min: 1 } }", "required fields are missing"),
    ],
)
def test_an_error_has_line_column_what_was_found_and_expected(text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        read(text)


def test_unknown_fields_are_all_listed_whatever_their_value() -> None:
    message = NetParameter()
    text = """name: 'x'
    new_scalar: 3 new_list: [1, 'a', { b: 2 }]
    layer { name: 'l' new_message { deep { x: 1; y: < z: 'q' 'r' > } } type: 'ReLU' }
    """
    unknown = parse(text, message, "net").unknown
    assert [one.partition(" has")[0] for one in unknown] == [
        "net:2:5: NetParameter",
        "net:2:19: NetParameter",
        "net:3:23: LayerParameter",
    ]
    assert message.layer[0].type == "ReLU"


def test_nesting_has_a_bound_and_no_recursion_error() -> None:
    for text in ("layer {" * 100_000, "new {" * 100_000, "new: " + "{ a: " * 100_000):
        with pytest.raises(FormatError):
            read(text)


@given(st.text(alphabet="layer{}<>[]:;,'\"\\ 0x1.5f-#\nnamepool", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text)
    except FormatError as error:
        assert str(error).startswith("net:")
