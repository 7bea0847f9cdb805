"""Protobuf's text format: text becomes a message, every complaint with line and column.

Enters: the text and an empty message, whose descriptor is the schema. Leaves: the message
filled, what the schema does not know (listed, not swallowed), and the line of every
sub-message of the top level. Accepts what protobuf's own parser does: octal and hex
numbers, ``1.0f``, ``<>`` for ``{}``, ``[a, b]`` lists, ``,`` and ``;`` after a field, enums
by name or number, ``t`` and ``True``. Syntax: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from .errors import FormatError

DEEPEST = 64

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
    |(?P<name>-?\s*[A-Za-z_][\w.]*)
    |(?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(rb"\\(?:([abfnrtv\\'\"?])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2}))")
_SIMPLE = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))
# Messages and descriptors are ``Any`` here: protobuf has several implementations of both.
_TRUE, _FALSE = {"true", "True", "t", "1"}, {"false", "False", "f", "0"}
_CLOSING = {"{": "}", "<": ">"}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


class Token(NamedTuple):
    """A word of the text; ``kind`` is string, number, name, mark or end."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text said: unknown fields as messages, lines of the top level's fields."""

    unknown: tuple[str, ...]
    lines: dict[str, list[int]]


@dataclass(slots=True)
class _Reader:
    text: str
    place: str
    tokens: Iterator[Token]
    token: Token
    unknown: list[str] = field(default_factory=list)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def step(self) -> Token:
        taken, self.token = self.token, next(self.tokens)
        return taken

    def take(self, mark: str) -> bool:
        if self.token.kind == "mark" and self.token.text == mark:
            self.step()
            return True
        return False

    def error(self, expected: str, token: Token | None = None) -> FormatError:
        token = token or self.token
        line, column = _where(self.text, token.at)
        found = "the end of the text" if token.kind == "end" else repr(token.text[:80])
        return FormatError(f"{self.place}:{line}:{column}: found {found}, expected {expected}")


def parse(text: str, message: Any, place: str) -> Parsed:
    """Fill ``message`` from ``text``; ``place`` (a path) begins every complaint.

    Raises
    ------
    FormatError
        Text that is not the text format, a value of the wrong type, a single field given
        twice, or a missing required field; with line and column.

    """
    tokens = _tokens(text, place)
    reader = _Reader(text, place, tokens, next(tokens))
    _message(reader, message, None, 0)
    missing = message.FindInitializationErrors()
    if missing:
        raise FormatError(f"{place}: required fields are missing: {', '.join(missing)}")
    return Parsed(tuple(reader.unknown), reader.lines)


def _where(text: str, at: int) -> tuple[int, int]:
    """Return the line and column of a place in the text, from 1."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _tokens(text: str, place: str) -> Iterator[Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line, column = _where(text, at)
            raise FormatError(
                f"{place}:{line}:{column}: found {text[at : at + 12]!r}, "
                "expected a field name, a value or one of {} <> [] : , ;"
            )
        kind = str(match.lastgroup)
        if kind != "skip":
            yield Token(kind, match.group(), at)
        at = match.end()
    while True:
        yield Token("end", "", len(text))


def _message(reader: _Reader, message: Any, closing: str | None, depth: int) -> None:
    """Read fields into ``message`` up to ``closing`` (None: the end of the text)."""
    if depth > DEEPEST:
        raise reader.error(f"at most {DEEPEST} nested messages")
    descriptor = message.DESCRIPTOR
    seen: set[str] = set()
    while not (closing and reader.take(closing)):
        if closing is None and reader.token.kind == "end":
            return
        name = reader.step()
        if name.kind != "name":
            expected = f"a field name or {closing!r}" if closing else "a field name"
            raise reader.error(expected, name)
        known = descriptor.fields_by_name.get(name.text)
        if known is None:
            line, column = _where(reader.text, name.at)
            reader.unknown.append(
                f"{reader.place}:{line}:{column}: {descriptor.name} has no field {name.text!r}"
            )
            _skip(reader, depth)
        else:
            if not is_repeated(known):
                if name.text in seen:
                    raise reader.error(f"{name.text!r} only once in {descriptor.name}", name)
                seen.add(name.text)
            _field(reader, message, known, depth)
            if depth == 0 and is_repeated(known):  # A list brings several at once.
                lines = reader.lines.setdefault(name.text, [])
                new = len(getattr(message, name.text)) - len(lines)
                lines += [_where(reader.text, name.at)[0]] * new
        if not reader.take(","):
            reader.take(";")


def _field(reader: _Reader, message: Any, known: Any, depth: int) -> None:
    colon = reader.take(":")
    is_message = known.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    if not colon and not is_message:
        raise reader.error("':'")
    if not (is_repeated(known) and reader.take("[")):
        _value(reader, message, known, depth)
        return
    if reader.take("]"):
        return
    while True:
        _value(reader, message, known, depth)
        if reader.take("]"):
            return
        if not reader.take(","):
            raise reader.error("',' or ']'")


def _value(reader: _Reader, message: Any, known: Any, depth: int) -> None:
    repeated = is_repeated(known)
    if known.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        opening = reader.step()
        if opening.kind != "mark" or opening.text not in _CLOSING:
            raise reader.error("'{'", opening)
        child = getattr(message, known.name)
        if repeated:
            child = child.add()
        else:
            child.SetInParent()
        _message(reader, child, _CLOSING[opening.text], depth + 1)
        return
    value = _scalar(reader, known)
    if repeated:
        getattr(message, known.name).append(value)
    else:
        setattr(message, known.name, value)


def _scalar(reader: _Reader, known: Any) -> Any:
    token = reader.step()
    text = re.sub(r"\s", "", token.text)
    kind = known.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _string(reader, token, known)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise reader.error("true or false", token)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(reader, token, known)
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        number = _integer(text) if token.kind == "number" else None
        if number is None or not low <= number <= high:
            raise reader.error(f"a whole number from {low} to {high}", token)
        return number
    value = _float(text, token.kind)
    if value is None:
        raise reader.error("a number", token)
    return value


def _enum(reader: _Reader, token: Token, known: Any) -> int:
    values = known.enum_type
    if token.kind == "name" and token.text in values.values_by_name:
        return int(values.values_by_name[token.text].number)
    number = _integer(token.text) if token.kind == "number" else None
    if number not in values.values_by_number:
        raise reader.error(f"one of {', '.join(values.values_by_name)}", token)
    return int(values.values_by_number[number].number)


def _integer(text: str) -> int | None:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", digits):
        return sign * int(digits, 16)
    if re.fullmatch(r"0[0-7]*", digits):
        return sign * int(digits, 8)
    return sign * int(digits) if re.fullmatch(r"[1-9]\d{,63}", digits) else None  # int has a limit.


def _float(text: str, kind: str) -> float | None:
    special = re.fullmatch(r"(-?(?:inf|nan))(?:inity)?f?", text, re.IGNORECASE)
    if special:
        return float(special[1])
    whole = _integer(text) if kind == "number" else None
    if whole is not None:
        return -float(-whole) if text.startswith("-") else float(whole)  # "-0" is minus zero.
    return float(text.rstrip("fF")) if kind == "number" and "x" not in text.lower() else None


def _string(reader: _Reader, token: Token, known: Any) -> str | bytes:
    if token.kind != "string":
        raise reader.error("a quoted string", token)
    raw = _unescape(token.text[1:-1])
    while reader.token.kind == "string":  # Adjacent strings are one, as in C.
        raw += _unescape(reader.step().text[1:-1])
    if known.type == FieldDescriptor.TYPE_BYTES:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise reader.error("a string in UTF-8", token) from None


def _unescape(text: str) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        simple, octal, hexadecimal = match.groups()
        if simple:
            return bytes([_SIMPLE[simple[0]]])
        return bytes([int(octal, 8) & 0xFF if octal else int(hexadecimal, 16)])

    return _ESCAPE.sub(one, text.encode(errors="surrogateescape"))


def _skip(reader: _Reader, depth: int) -> None:
    """Pass over the value of an unknown field, whatever it is."""
    colon = reader.take(":")
    if reader.take("["):
        while not reader.take("]"):
            _skip_value(reader, depth)
            reader.take(",")
    elif colon or reader.token.text in _CLOSING:
        _skip_value(reader, depth)
    else:
        raise reader.error("':' or '{'")


def _skip_value(reader: _Reader, depth: int) -> None:
    if depth > DEEPEST:
        raise reader.error(f"at most {DEEPEST} nested messages")
    token = reader.step()
    if token.kind == "mark" and token.text in _CLOSING:
        while not reader.take(_CLOSING[token.text]):
            if reader.step().kind != "name":
                raise reader.error(f"a field name or {_CLOSING[token.text]!r}")
            _skip(reader, depth + 1)
            if not reader.take(","):
                reader.take(";")
    elif token.kind == "string":
        while reader.token.kind == "string":
            reader.step()
    elif token.kind not in ("number", "name"):
        raise reader.error("a value", token)


def is_repeated(known: Any) -> bool:
    """Tell lists from single fields on every protobuf from 3.20 to 7."""
    try:
        return bool(known.is_repeated)
    except AttributeError:
        return bool(known.label == FieldDescriptor.LABEL_REPEATED)


def format_message(message: Any, indent: int = 0) -> Iterator[str]:
    """Yield the lines of ``message`` in the text format, the same on every protobuf.

    Floats are the shortest decimals that read back to the same bits.
    """
    pad = "  " * indent
    for known, value in message.ListFields():
        for item in value if is_repeated(known) else [value]:
            if known.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                yield f"{pad}{known.name} {{"
                yield from format_message(item, indent + 1)
                yield f"{pad}}}"
            else:
                yield f"{pad}{known.name}: {_format_scalar(known, item)}"


def _format_scalar(known: Any, value: Any) -> str:
    kind = known.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return "true" if value else "false"
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return str(known.enum_type.values_by_number[value].name)
    if kind in _FLOATS:
        exact = np.float32(value) if kind == FieldDescriptor.CPPTYPE_FLOAT else np.float64(value)
        return str(exact)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        raw = value if isinstance(value, bytes) else value.encode()
        return '"' + "".join(_escape(byte) for byte in raw) + '"'
    return str(value)


def _escape(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
