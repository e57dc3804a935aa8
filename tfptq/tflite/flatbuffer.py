"""Read a FlatBuffers message that nobody has vouched for.

The Python runtime of FlatBuffers verifies nothing. This reader walks the whole message once, driven by a parsed
schema, and checks every offset and length against the buffer before it follows it. The layout it checks:

* ``buffer[0:4]`` offset of the root table, ``buffer[4:8]`` file identifier;
* a table starts with an int32, its distance *back* to its vtable; the vtable holds uint16s: own size, size of the
  table, then for each slot the field's distance from the table's start (0: absent);
* strings, vectors and tables are reached by a uint32 distance forward; a vector starts with a uint32 count.

Distances forward make cycles impossible, but one table or vector may be pointed to from many places, which can blow a
small file up to years of work; so the reader also has a budget proportional to the size of the buffer, which the C++
reader counts in the same way. Vectors of scalars come as numpy views of the buffer. Those of bytes are free: who reads
them has to see to it that each is read once.
"""

import struct
from types import SimpleNamespace

import numpy as np

from tfptq.tflite.schema import Field, Schema

#: How many times the size of the buffer the reader may walk over: real writers share tables a little.
WORK_FACTOR = 4
#: Work, in bytes, that even the smallest buffer may take.
LEAST_WORK = 65536
#: What visiting a table costs on top of its size, in bytes.
TABLE_WORK = 64
#: Deepest nesting of tables; our schemas need 4.
DEEPEST = 16


class FormatError(ValueError):
    """A file is not what it has to be: truncated, damaged, hostile or too new."""


def read_message(buffer: bytes, schema: Schema) -> SimpleNamespace:
    """Read a whole message.

    Args:
        buffer: the message, from its first byte; more bytes may follow it.
        schema: what the message has to look like.

    Returns:
        The root table as an object with one attribute per field: Python numbers, strings, numpy arrays for vectors
        of scalars, lists for other vectors, such objects for tables. An absent scalar has its default, an absent
        string is ``""``, an absent vector empty, an absent table None. A union value has the
        name of its type as ``table``; it is None for a type that the schema does not list.

    Raises:
        FormatError: the message leaves the buffer anywhere, or is not of this schema.
    """
    if len(buffer) < 8:
        raise FormatError(f"{len(buffer)} bytes are too few for a {_printable(schema.identifier)} message")
    if buffer[4:8] != schema.identifier:
        raise FormatError(f"the file identifier is {_printable(buffer[4:8])}, expected {_printable(schema.identifier)}")
    return _Walk(buffer, schema).root()


def _printable(identifier: bytes) -> str:
    return repr(bytes(identifier).decode("latin-1"))


class _Walk:
    """One walk over one message."""

    def __init__(self, buffer: bytes, schema: Schema):
        self.buffer = buffer
        self.schema = schema
        self.work_left = WORK_FACTOR * len(buffer) + LEAST_WORK

    def root(self) -> SimpleNamespace:
        return self.table(self.schema.root, self.follow(0), 0)

    def number(self, kind: str, position: int) -> int:
        """Read one ``struct`` number."""
        if position < 0 or position + struct.calcsize(kind) > len(self.buffer):
            raise FormatError(f"the message points to byte {position}, outside its {len(self.buffer)} bytes")
        return struct.unpack_from(kind, self.buffer, position)[0]

    def follow(self, position: int) -> int:
        """Target of the forward offset at ``position``."""
        distance = self.number("<I", position)
        if distance == 0:
            raise FormatError(f"the offset at byte {position} is 0")
        return position + distance

    def spend(self, amount: int) -> None:
        self.work_left -= amount
        if self.work_left < 0:
            raise FormatError("the message shares parts so often that reading it would take too long")

    def table(self, name: str, position: int, depth: int) -> SimpleNamespace:
        if depth > DEEPEST:
            raise FormatError(f"tables are nested deeper than {DEEPEST}")
        vtable = position - self.number("<i", position)
        vtable_size, size = self.number("<H", vtable), self.number("<H", vtable + 2)
        if vtable_size < 4 or size < 4 or max(vtable + vtable_size, position + size) > len(self.buffer):
            raise FormatError(f"the table {name} at byte {position} is damaged")
        self.spend(size + TABLE_WORK)
        values = SimpleNamespace()
        for field in self.schema.tables[name]:
            target = self.field_position(field.slot, vtable, vtable_size)
            if field.type in self.schema.unions:
                which = self.field_position(field.slot - 1, vtable, vtable_size)
                value = self.union(field, position, size, which, target, depth)
            elif target == 0:
                value = self.absent(field)
            else:
                value = self.value(field, position, target, size, depth)
            setattr(values, field.name, value)
        return values

    def field_position(self, slot: int, vtable: int, vtable_size: int) -> int:
        """Distance of a field from the start of its table; 0 when absent."""
        entry = 4 + 2 * slot
        return self.number("<H", vtable + entry) if entry + 2 <= vtable_size else 0

    def absent(self, field: Field):
        scalar = self.schema.scalar(field.type)
        if field.is_vector:
            return [] if scalar is None else np.zeros(0, scalar)
        if scalar is not None:
            return np.dtype(scalar).type(field.default).item()
        return "" if field.type == "string" else None

    def value(self, field: Field, position: int, distance: int, size: int, depth: int):
        scalar = None if field.is_vector else self.schema.scalar(field.type)
        self.inside(field, distance, 4 if scalar is None else np.dtype(scalar).itemsize, size)
        position += distance
        if scalar is not None:
            return np.frombuffer(self.buffer, scalar, 1, position)[0].item()
        target = self.follow(position)
        if field.is_vector:
            return self.vector(field, target, depth)
        return self.string(target) if field.type == "string" else self.table(field.type, target, depth + 1)

    def union(self, field: Field, position: int, size: int, which: int, target: int, depth: int):
        self.inside(field, which, 1, size)
        number = self.number("<B", position + which) if which else 0
        table = self.schema.unions[field.type].get(number)
        if table is None or target == 0:
            return None
        self.inside(field, target, 4, size)
        values = self.table(table, self.follow(position + target), depth + 1)
        values.table = table
        return values

    @staticmethod
    def inside(field: Field, distance: int, width: int, size: int) -> None:
        """Refuse a field that leaves its table of ``size`` bytes."""
        if distance + width > size:
            raise FormatError(f"the field {field.name} leaves its table")

    def vector(self, field: Field, position: int, depth: int):
        scalar = self.schema.scalar(field.type)
        count, start = self.number("<I", position), position + 4
        size = count * np.dtype(scalar or "<u4").itemsize
        if start + size > len(self.buffer):
            raise FormatError(f"the vector {field.name} of {count} entries leaves the message")
        self.spend(0 if scalar == "<u1" else size)
        if scalar is not None:
            return np.frombuffer(self.buffer, scalar, count, start)
        targets = [self.follow(start + 4 * index) for index in range(count)]
        if field.type == "string":
            return [self.string(target) for target in targets]
        return [self.table(field.type, target, depth + 1) for target in targets]

    def string(self, position: int) -> str:
        count = self.number("<I", position)
        if position + 4 + count > len(self.buffer):
            raise FormatError(f"the string of {count} bytes at byte {position} leaves the message")
        self.spend(count)
        try:
            return bytes(self.buffer[position + 4 : position + 4 + count]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"the string at byte {position} is not UTF-8") from error
