import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplab_zoo.proto import wire
from deeplab_zoo.proto.errors import FormatError


def walk(data: bytes) -> list[wire.Field]:
    return list(wire.fields(memoryview(data), 0, len(data)))


@given(st.integers(0, 2**64 - 1))
def test_a_varint_reads_back_as_written(value: int) -> None:
    data = wire.encode_varint(value)
    assert wire.varint(memoryview(data), 0, len(data)) == (value, len(data))


def test_each_wire_type_has_its_payload_located() -> None:
    data = (
        wire.tag(1, wire.VARINT)
        + wire.encode_varint(300)
        + wire.tag(2, wire.I64)
        + bytes(8)
        + wire.tag(300, wire.LEN)
        + b"\x03abc"
        + wire.tag(4, wire.I32)
        + bytes(4)
    )
    found = walk(data)
    assert [(f.number, f.kind) for f in found] == [(1, 0), (2, 1), (300, 2), (4, 5)]
    assert found[0].value == 300
    assert data[found[2].start : found[2].stop] == b"abc"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x80", "byte 1: the data end inside a number"),
        (b"\xff" * 11, "a number of more than 10 bytes"),
        (b"\x00\x00", "byte 0: field number 0"),
        (b"\x0a\x05abc", "byte 0: field 1 needs 5 bytes, 3 are left"),
        (b"\x0d\x00", "byte 0: field 1 needs 4 bytes, 1 are left"),
        (b"\x0b", "byte 0: field 1 has wire type 3"),
        (
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "field 1 needs 18446744073709551615 bytes",
        ),
    ],
)
def test_damage_is_named_with_its_byte(data: bytes, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        walk(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_or_refused(data: bytes) -> None:
    try:
        for field in walk(data):
            assert 0 <= field.begin < field.stop <= len(data)
    except FormatError:
        pass
