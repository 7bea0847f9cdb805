"""The sorted table: what a reader must accept, and what it must refuse."""

import io
from itertools import pairwise
from pathlib import Path

import cramjam
import google_crc32c
import pytest

from deeplab_zoo.proto.errors import FormatError
from deeplab_zoo.proto.table import MAGIC, block_of, entries, masked, open_table
from deeplab_zoo.proto.table_write import write_table
from deeplab_zoo.proto.wire import encode_varint

ENTRIES = [(f"layer{n:05d}/weights".encode(), bytes([n % 251]) * (n % 97)) for n in range(9000)]


def written(path: Path, pairs: list[tuple[bytes, bytes]]) -> Path:
    with path.open("wb") as file:
        write_table(pairs, file)
    return path


def block(content: bytes, kind: int) -> bytes:
    checked = content + bytes([kind])
    return checked + masked(google_crc32c.value(checked)).to_bytes(4, "little")


def table_of(*blocks: tuple[bytes, bytes]) -> bytes:
    """A table of whole blocks (with trailer), each with the last key of it."""
    out, index = b"", b""
    for key, stored in blocks:
        handle = encode_varint(len(out)) + encode_varint(len(stored) - 5)
        index += bytes([0, len(key), len(handle)]) + key + handle
        out += stored
    index_block = block(index + bytes(4) + (1).to_bytes(4, "little"), 0)
    handle = encode_varint(len(out)) + encode_varint(len(index_block) - 5)
    footer = (b"\0\0" + handle).ljust(40, b"\0") + MAGIC.to_bytes(8, "little")
    return out + index_block + footer


def records(*pairs: tuple[bytes, bytes], restarts: tuple[int, ...] = (0,)) -> bytes:
    """A block without shared prefixes."""
    body = b"".join(bytes([0, len(k), len(v)]) + k + v for k, v in pairs)
    return body + b"".join(n.to_bytes(4, "little") for n in (*restarts, len(restarts)))


def opened(path: Path, content: bytes) -> list[tuple[bytes, bytes]]:
    path.write_bytes(content)
    return [(key, bytes(value)) for key, value in entries(open_table(path))]


def test_what_is_written_is_read_in_order_over_many_blocks(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "t", ENTRIES))
    assert len(table.blocks) > 1
    assert [(key, bytes(value)) for key, value in entries(table)] == ENTRIES


def test_equal_entries_give_an_equal_file() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    write_table(ENTRIES, first)
    write_table(iter(ENTRIES), second)
    assert first.getvalue() == second.getvalue()


def test_keys_that_do_not_ascend_are_not_written() -> None:
    with pytest.raises(ValueError, match="ascending"):
        write_table([(b"b", b""), (b"a", b"")], io.BytesIO())


def test_a_key_is_sought_in_the_one_block_that_can_hold_it(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "t", ENTRIES))
    for key, value in ENTRIES[::500]:
        number = block_of(table, key)
        assert number is not None
        assert bytes(dict(entries(table, (number,)))[key]) == value
    assert block_of(table, b"zzz") is None


def test_index_keys_separate_the_blocks(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "t", ENTRIES))
    firsts = [next(entries(table, (n,)))[0] for n in range(len(table.blocks))]
    assert all(here.last < after for here, after in zip(table.blocks, firsts[1:], strict=False))
    assert all(a.last < b.last for a, b in pairwise(table.blocks))


def test_raw_and_snappy_blocks_mix(tmp_path: Path) -> None:
    packed = bytes(cramjam.snappy.compress_raw(records((b"a", b"x" * 100), (b"b", b"y"))))
    content = table_of((b"b", block(packed, 1)), (b"c", block(records((b"c", b"z")), 0)))
    assert opened(tmp_path / "t", content) == [(b"a", b"x" * 100), (b"b", b"y"), (b"c", b"z")]


def test_an_empty_table_has_no_entries(tmp_path: Path) -> None:
    assert opened(tmp_path / "t", written(tmp_path / "w", []).read_bytes()) == []


GOOD = records((b"a", b"1"), (b"b", b"2"))


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        (block(GOOD, 0)[:-1] + b"\0", "crc32c"),
        (block(GOOD, 7), "compression 7"),
        (block(GOOD, 1), "snappy"),
        (block(encode_varint(2**40) + b"\0" * 9, 1), "claim to hold 1099511627776"),
        (block(b"\0\0\0", 0), "restart points"),
        (block(GOOD[:-4] + b"\xff\xff\xff\x7f", 0), "2147483647 restart points"),
        (block(records((b"a", b"1"), (b"b", b"2"), restarts=(0, 3)), 0), "restart point 1"),
        (block(records((b"a", b"1"), restarts=(0, 4)), 0), "restart point 1"),
        (block(b"\1\1\0a" + bytes(4) + b"\1\0\0\0", 0), "byte 0 of it"),
        (block(b"\0\1\x80\x80\x80\x80\1a" + bytes(4) + b"\1\0\0\0", 0), "does not fit"),
        (block(b"\0\x80" + bytes(4) + b"\1\0\0\0", 0), "end inside a number"),
    ],
)
def test_a_damaged_block_is_refused_by_its_place(
    tmp_path: Path, stored: bytes, complaint: str
) -> None:
    with pytest.raises(FormatError, match=complaint) as error:
        opened(tmp_path / "t", table_of((b"c", stored)))
    assert str(error.value).startswith(f"{tmp_path / 't'}: block at byte 0: ")


def test_keys_that_spell_more_than_the_file_are_refused(tmp_path: Path) -> None:
    # Each record is 4 bytes and shares the 64 KB of the first key.
    first = b"k" * (1 << 16)
    body = b"\0" + encode_varint(len(first)) + b"\0" + first
    body += b"".join(encode_varint(len(first) + n) + b"\1\0k" for n in range(2000))
    content = table_of((b"z", block(body + bytes(4) + b"\1\0\0\0", 0)))
    with pytest.raises(FormatError, match="keys are longer"):
        opened(tmp_path / "t", content)


def test_blocks_out_of_order_are_refused(tmp_path: Path) -> None:
    content = table_of((b"b", block(GOOD, 0)), (b"a", block(GOOD, 0)))
    with pytest.raises(FormatError, match="out of order"):
        opened(tmp_path / "t", content)


def test_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a web page"):
        opened(tmp_path / "t", b"<!DOCTYPE html><html>...")
    with pytest.raises(FormatError, match="signature"):
        opened(tmp_path / "t", b"\0\1\2" * 50)
    with pytest.raises(FormatError, match="empty"):
        opened(tmp_path / "t", b"")
