"""GraphDef files made by hand: what is told of them, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab_zoo.converters.kinds import Kind, kind_of
from deeplab_zoo.proto.errors import FormatError
from deeplab_zoo.proto.frozen_graph import FrozenGraph, is_frozen_graph, open_frozen_graph
from deeplab_zoo.proto.wire import LEN, VARINT, encode_varint, tag

FLOAT, INT32, HALF, BFLOAT16 = 1, 3, 19, 14


def sized(number: int, payload: bytes) -> bytes:
    return tag(number, LEN) + encode_varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    return tag(field, VARINT) + encode_varint(value)


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    parts = [sized(1, name.encode()), sized(2, op.encode())]
    parts += [sized(3, one.encode()) for one in inputs]
    parts += [sized(5, sized(1, k.encode()) + sized(2, v)) for k, v in attributes.items()]
    return sized(1, b"".join(parts))


def const(name: str, dtype: int, shape: tuple[int, ...], values: bytes) -> bytes:
    """``values`` is the field of a TensorProto that holds them."""
    sizes = sized(2, b"".join(sized(2, number(1, size)) for size in shape))
    return node(name, "Const", value=sized(8, number(1, dtype) + sizes + values))


def content(values: Any, kind: str) -> bytes:
    return sized(4, np.asarray(values, kind).tobytes())


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    def of(*nodes: bytes) -> FrozenGraph:
        path = tmp_path / "x.pb"
        path.write_bytes(b"".join(nodes) + sized(4, number(1, 987)))
        return open_frozen_graph(path)

    return of


def constants(graph: FrozenGraph) -> Mapping[str, Any]:
    return {name: one.read() for name, one in graph.constants.items()}


def test_constants_are_read_however_they_are_stored(opened: Any) -> None:
    table = [[1.5, -2, 3], [4, 5, 6]]
    graph = opened(
        node("image", "Placeholder"),
        const("a", FLOAT, (2, 3), content(table, "<f4")),
        const("b", FLOAT, (2,), sized(5, np.array([7, 8], "<f4").tobytes())),
        const("splat", FLOAT, (3, 2), sized(5, np.array([9], "<f4").tobytes())),
        const("whole", INT32, (3,), sized(7, b"\x02\x03\x04")),
        const("half", HALF, (2,), content([0.5, 2], "<f2")),
        const("brain", BFLOAT16, (1,), content([0x3FC0], "<u2")),
        const("scalar", FLOAT, (), content(3.25, "<f4")),
    )
    found = constants(graph)
    np.testing.assert_array_equal(found["a"], np.array(table, "f4"))
    assert found["b"].tolist() == [7, 8]
    assert found["splat"].tolist() == [[9, 9]] * 3
    assert found["whole"].tolist() == [2, 3, 4]
    assert (found["half"].dtype, found["half"].tolist()) == (np.float16, [0.5, 2])
    assert (found["brain"].dtype, found["brain"].tolist()) == (np.float32, [1.5])
    assert found["scalar"].shape == ()
    assert graph.operations == {"Placeholder", "Const"}
    assert {name: one.dtype for name, one in graph.constants.items()}["brain"] == "bfloat16"


def test_dilations_are_told_by_attributes_and_by_room_made_for_them(opened: Any) -> None:
    packed = sized(1, sized(3, bytes([1, 3, 3, 1])))
    single = sized(1, b"".join(number(3, one) for one in (1, 2, 2, 1)))
    graph = opened(
        node("packed", "Conv2D", dilations=packed),
        node("single", "Conv2D", dilations=single),
        node("plain", "Conv2D", dilations=sized(1, sized(3, bytes([1, 1, 1, 1])))),
        const("room/block", INT32, (2,), content([6, 6], "<i4")),
        node("room", "SpaceToBatchND", "x", "room/block", "pads"),
    )
    assert graph.dilations == {"packed": 3, "single": 2, "room": 6}


def test_a_frozen_graph_is_told_from_a_caffemodel_by_its_first_bytes(
    tmp_path: Path, golden: Path
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(node("x", "Placeholder"))
    assert kind_of(path) is Kind.FROZEN
    assert kind_of(golden / "caffe" / "fmt_new.caffemodel") is Kind.CAFFEMODEL
    named = sized(1, b"a net's name") + sized(100, sized(1, b"conv1"))
    for start in (b"", b"\n", b"\n\x80", b"\n\x04\n\x02ab", named, b"\x08\x01\x12\x02\n\0"):
        assert not is_frozen_graph(start)


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (content([1, 2, 3], "<f4"), (2, 2), r"x.pb: a: 12 bytes of float32, .* needs 16"),
        (sized(5, bytes(8)), (3,), r"x.pb: a: 2 numbers of float32, the shape needs 3"),
        (b"", (2,), r"x.pb: a: 0 numbers of float32, the shape needs 2"),
        # One number must not claim more memory than the file could.
        (sized(5, bytes(4)), (1 << 20, 1 << 10), r"1 numbers .* needs 1073741824"),
    ],
)
def test_a_constant_that_lies_is_refused_when_it_is_read(
    opened: Any, values: bytes, shape: tuple[int, ...], message: str
) -> None:
    graph = opened(const("a", FLOAT, shape, values))
    with pytest.raises(FormatError, match=message):
        graph.constants["a"].read()


def test_damage_to_the_graph_names_file_and_byte(opened: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"x.pb: byte 4: a node without a name or an operation"):
        opened(sized(7, b"ab"), sized(1, sized(1, b"a")))
    with pytest.raises(FormatError, match=r"x.pb: a: shape .*, expected sizes from 0"):
        opened(const("a", FLOAT, (1 << 40, 1 << 40), b""))
    whole = node("x", "Placeholder") + const("a", FLOAT, (3,), content([1, 2, 3], "<f4"))
    path = tmp_path / "cut.pb"
    path.write_bytes(whole[:-2])
    with pytest.raises(FormatError, match=r"cut.pb: byte \d+: field 1 needs .* \(cut short"):
        open_frozen_graph(path)
    path.write_bytes(b"<html>")
    with pytest.raises(FormatError, match=r"is a web page, expected a frozen graph"):
        open_frozen_graph(path)


def test_what_tells_a_dilation_must_be_whole_numbers_and_no_node_is_there_twice(
    opened: Any,
) -> None:
    for values in (
        const("b", FLOAT, (1,), content([np.nan], "<f4")),
        const("b", 7, (1,), sized(8, b"2")),
    ):
        with pytest.raises(FormatError, match=r"x.pb: s: makes room by (float32|string)"):
            opened(values, node("s", "SpaceToBatchND", "image", "b"))
    with pytest.raises(FormatError, match=r"x.pb: a: two nodes of this name"):
        opened(node("a", "Placeholder"), node("a", "Identity"))
