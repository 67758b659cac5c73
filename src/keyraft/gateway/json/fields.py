"""A table for each message: its fields by name, how their values are written and quickly read.

The quick readers take what is surely right and raise NotQuickError for all else, right or wrong;
`protojson` then decides. They never take what `protojson` would refuse.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from keyraft.base.ids import INT64_MAX, UINT64_MAX
from keyraft.base.varints import TABLE_SIZE, VARINTS, plain_varint

INT32_MAX: Final = (1 << 31) - 1
UINT32_MAX: Final = (1 << 32) - 1
# DEVIATION: Go's limit is 10,000; Python's protobuf writes and reads a hundred levels.
DEPTH_MAX: Final = 90

INTEGER: Final = "integer"
BOOL: Final = "bool"
STRING: Final = "string"
BYTES: Final = "bytes"
ENUM: Final = "enum"
MESSAGE: Final = "message"

_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32: ("int32", -INT32_MAX - 1, INT32_MAX),
    FieldDescriptor.TYPE_INT64: ("int64", -INT64_MAX - 1, INT64_MAX),
    FieldDescriptor.TYPE_UINT32: ("uint32", 0, UINT32_MAX),
    FieldDescriptor.TYPE_UINT64: ("uint64", 0, UINT64_MAX),
}
_WIDE: Final = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
_SIZED: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_OTHERS: Final = {
    FieldDescriptor.TYPE_BOOL: BOOL,
    FieldDescriptor.TYPE_STRING: STRING,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_ENUM: ENUM,
    FieldDescriptor.TYPE_MESSAGE: MESSAGE,
}
_WHOLE_NUMBER: Final = re.compile(r"(?:0|-?[1-9][0-9]{0,19})\Z").match


class NotQuickError(Exception):
    """The quick reader does not take this; the exact one decides."""


class Quotes:
    """How many quotation marks the values that were read stand in, and how deep they are.

    A JSON text without backslashes has as many; one with more has a name twice.
    """

    __slots__ = ("count", "depth")

    def __init__(self) -> None:
        self.count = 0
        self.depth = 0


class Field:
    """One field of a message. `bit` marks it in a set of those seen."""

    __slots__ = (
        "bit",
        "enum",
        "get",
        "json_name",
        "kind",
        "least",
        "most",
        "name",
        "number",
        "oneof",
        "packed",
        "part",
        "presence",
        "read",
        "repeated",
        "rivals",
        "table",
        "tag",
        "type_name",
        "value",
    )

    enum: EnumDescriptor  # of an enum's field only

    def __init__(self, field: FieldDescriptor, bit: int) -> None:
        self.bit = bit
        self.name = field.name
        self.json_name = field.json_name
        self.repeated = field.is_repeated
        oneof = field.containing_oneof
        self.oneof = None if oneof is None else oneof.name
        self.rivals = 0  # the bits of a oneof's fields, this one's included
        self.presence = field.has_presence
        self.number = field.number
        self.packed = field.is_packed
        sized = field.message_type is not None or field.type in _SIZED or field.is_packed
        self.tag = _number(field.number << 3 | (2 if sized else 0))
        if field.is_repeated:
            self.part: Callable[[Field, Any, Quotes], bytes] = _repeated_part
        else:
            self.part = _present_part if field.has_presence else _plain_part
        self.get: Callable[[Any], Any] = attrgetter(field.name)
        self.table: Table | None = None
        self.read = _READERS[INTEGER if field.type in _INTEGERS else _OTHERS[field.type]]
        self.least = self.most = 0
        if field.type in _INTEGERS:
            self.kind = INTEGER
            self.type_name, self.least, self.most = _INTEGERS[field.type]
            self.value: Callable[[Any], Any] = str if field.type in _WIDE else int
            return
        self.kind = self.type_name = _OTHERS[field.type]
        enum, inner = field.enum_type, field.message_type
        if self.kind == BYTES:
            self.value = to_base64
        elif enum is not None:
            self.enum = enum
            names = {value.number: value.name for value in enum.values}
            self.value = partial(_enum_out, names)
        elif inner is not None:
            self.table = table_of(inner)
            self.value = self.table.to_object
        else:
            self.value = _same


class Table:
    """The fields of one message."""

    __slots__ = ("by_name", "fields", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.fields: tuple[Field, ...] = ()
        self.by_name: dict[str, Field] = {}

    def to_object(self, message: Message) -> dict[str, Any]:
        """What `orjson` writes: names as in the .proto file, unset fields left out."""
        out: dict[str, Any] = {}
        for field in self.fields:
            value = field.get(message)
            if field.repeated:
                if value:
                    convert = field.value
                    out[field.name] = [convert(item) for item in value]
            elif field.presence:
                if message.HasField(field.name):
                    out[field.name] = field.value(value)
            elif value:
                out[field.name] = field.value(value)
        return out

    def read_quickly(self, source: Any, quotes: Quotes) -> bytes:
        """The encoded message of a decoded JSON object; raises NotQuickError."""
        if type(source) is not dict or quotes.depth == DEPTH_MAX:
            raise NotQuickError
        quotes.depth += 1
        quotes.count += 2 * len(source)
        seen = chosen = 0
        parts: list[tuple[int, bytes]] = []
        by_name = self.by_name
        for name, value in source.items():
            field = by_name.get(name)
            if field is None or seen & field.bit:
                raise NotQuickError
            seen |= field.bit
            if value is not None:
                if field.rivals:
                    if chosen & field.rivals:
                        raise NotQuickError
                    chosen |= field.bit
                parts.append((field.number, field.part(field, value, quotes)))
        quotes.depth -= 1
        if len(parts) > 1:
            parts.sort()  # protobuf writes fields by their numbers
        return b"".join([part for _, part in parts])


# --- values out -----------------------------------------------------------------------------------


def to_base64(value: bytes) -> str:
    """In the standard alphabet, padded."""
    return b2a_base64(value, newline=False).decode("ascii")


def _same(value: Any) -> Any:
    return value


def _enum_out(names: dict[int, str], value: int) -> str | int:
    return names.get(value, value)


# --- values in ------------------------------------------------------------------------------------
# Each gives a value as protobuf writes it behind the field's tag; of a zero or nothing that is b"\0".


def _number(value: int) -> bytes:
    return VARINTS[value] if 0 <= value < TABLE_SIZE else plain_varint(value & UINT64_MAX)


def _sized(value: bytes) -> bytes:
    size = len(value)
    return (VARINTS[size] if size < TABLE_SIZE else plain_varint(size)) + value


def _integer_in(field: Field, value: Any, quotes: Quotes) -> bytes:
    if type(value) is str:
        if _WHOLE_NUMBER(value) is None:
            raise NotQuickError
        quotes.count += 2
        value = int(value)
    elif type(value) is not int:
        raise NotQuickError
    if not field.least <= value <= field.most:
        raise NotQuickError
    return _number(value)


def _bool_in(field: Field, value: Any, quotes: Quotes) -> bytes:
    if type(value) is not bool:
        raise NotQuickError
    return b"\1" if value else b"\0"


def _string_in(field: Field, value: Any, quotes: Quotes) -> bytes:
    if type(value) is not str:
        raise NotQuickError
    quotes.count += 2
    return _sized(value.encode())


def _bytes_in(field: Field, value: Any, quotes: Quotes) -> bytes:
    if type(value) is not str or len(value) & 3:
        raise NotQuickError
    quotes.count += 2
    try:
        return _sized(a2b_base64(value, strict_mode=True))
    except (Base64Error, ValueError):  # ValueError: characters that are not ASCII
        raise NotQuickError from None


def _enum_in(field: Field, value: Any, quotes: Quotes) -> bytes:
    if type(value) is str:
        found = field.enum.values_by_name.get(value)
        if found is None:
            raise NotQuickError
        quotes.count += 2
        return _number(found.number)
    if type(value) is not int or not -INT32_MAX <= value <= INT32_MAX:
        raise NotQuickError
    return _number(value)


def _message_in(field: Field, value: Any, quotes: Quotes) -> bytes:
    assert field.table is not None, "a message's field has its table"
    return _sized(field.table.read_quickly(value, quotes))


_READERS: Final[dict[str, Callable[[Field, Any, Quotes], bytes]]] = {
    INTEGER: _integer_in,
    BOOL: _bool_in,
    STRING: _string_in,
    BYTES: _bytes_in,
    ENUM: _enum_in,
    MESSAGE: _message_in,
}


def _plain_part(field: Field, value: Any, quotes: Quotes) -> bytes:
    """One value; a zero is left out."""
    content = field.read(field, value, quotes)
    return b"" if content == b"\0" else field.tag + content


def _present_part(field: Field, value: Any, quotes: Quotes) -> bytes:
    """One value, also if it is zero."""
    return field.tag + field.read(field, value, quotes)


def _repeated_part(field: Field, value: Any, quotes: Quotes) -> bytes:
    """Any number of values."""
    if type(value) is not list:
        raise NotQuickError
    read = field.read
    items = [read(field, item, quotes) for item in value]
    if field.packed:
        return field.tag + _sized(b"".join(items)) if items else b""
    return b"".join([field.tag + item for item in items])


_tables: dict[str, Table] = {}


def table_of(descriptor: Any) -> Table:
    """The table of a message's descriptor, made once; messages may hold themselves."""
    table = _tables.get(descriptor.full_name)
    if table is None:
        table = _tables[descriptor.full_name] = Table(descriptor.full_name)
        table.fields = tuple(Field(field, 1 << at) for at, field in enumerate(descriptor.fields))
        for field in table.fields:
            table.by_name.setdefault(field.name, field)
        for field in table.fields:  # a name in JSON goes before one in the .proto file
            table.by_name[field.json_name] = field
            if field.oneof is not None:
                field.rivals = sum(one.bit for one in table.fields if one.oneof == field.oneof)
    return table
