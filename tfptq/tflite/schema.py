"""Parse the part of the FlatBuffers schema language that our schemas use.

The parsed schema drives the bounds-checked reader (``flatbuffer.py``) and the generator of the C++ reader, so that
the ``.fbs`` text stays the one source of the format. Understood are enumerations, unions, tables with scalars,
strings, vectors, tables and union members, defaults, ``(id: n)``, ``(deprecated)``, ``file_identifier`` and
``root_type``. Field ``k`` of a table has the slot ``k`` unless it names one; a union takes two slots, its type and its
value. A deprecated field keeps its slot and is neither read nor written.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

#: Scalar types of the schema language as little-endian numpy types.
SCALARS = {
    "bool": "<u1",
    "byte": "<i1",
    "ubyte": "<u1",
    "short": "<i2",
    "ushort": "<u2",
    "int": "<i4",
    "uint": "<u4",
    "long": "<i8",
    "ulong": "<u8",
    "float": "<f4",
    "double": "<f8",
}


@dataclass(frozen=True)
class Field:
    """One field of a table.

    Attributes:
        name: its name.
        slot: its place in the vtable; for a union, that of the value (the type is in the slot before).
        type: name of a scalar, ``string``, enumeration, union or table.
        is_vector: whether the field is a vector of ``type``.
        default: value of an absent scalar.
    """

    name: str
    slot: int
    type: str
    is_vector: bool
    default: float


@dataclass(frozen=True)
class Schema:
    """A parsed schema.

    Attributes:
        tables: table name -> fields.
        enums: enumeration name -> (scalar type, {member: value}).
        unions: union name -> {type number: table name}.
        root: name of the root table.
        identifier: the four bytes of the file identifier.
    """

    tables: dict[str, tuple[Field, ...]]
    enums: dict[str, tuple[str, dict[str, int]]]
    unions: dict[str, dict[int, str]]
    root: str
    identifier: bytes

    def scalar(self, type_name: str) -> str | None:
        """Numpy type of a scalar or enumeration; None for other types."""
        return SCALARS.get(self.enums[type_name][0] if type_name in self.enums else type_name)


@cache
def own_schema(name: str) -> Schema:
    """The schema in a file of this package, such as ``blocks.fbs``."""
    return parse_schema(resources.files("tfptq.tflite").joinpath(name).read_text(encoding="utf-8"))


def parse_schema(text: str) -> Schema:
    """Parse schema text.

    Raises:
        ValueError: a type, the root or the file identifier is missing or not understood.
    """
    text = re.sub(r"//[^\n]*", "", text)
    enums = {
        name: (kind, _members(body))
        for name, kind, body in re.findall(r"\benum\s+(\w+)\s*:\s*(\w+)\s*\{([^}]*)\}", text)
    }
    unions = {
        name: {number: table for table, number in _members(body, first=1).items()}
        for name, body in re.findall(r"\bunion\s+(\w+)\s*\{([^}]*)\}", text)
    }
    tables = {name: _fields(body, unions) for name, body in re.findall(r"\btable\s+(\w+)\s*\{([^}]*)\}", text)}
    root = re.search(r"\broot_type\s+(\w+)\s*;", text)
    identifier = re.search(r'\bfile_identifier\s+"(.{4})"\s*;', text)
    if root is None or identifier is None:
        raise ValueError("the schema lacks a root_type or a file_identifier of four letters")
    schema = Schema(tables, enums, unions, root[1], identifier[1].encode())
    _check_types(schema)
    return schema


def _members(body: str, first: int = 0) -> dict[str, int]:
    """``A, B = 5, C`` -> ``{A: first, B: 5, C: 6}``."""
    members: dict[str, int] = {}
    for name, value in re.findall(r"(\w+)\s*(?:=\s*(-?\d+))?\s*(?:,|$)", body.strip()):
        members[name] = int(value) if value else max(members.values(), default=first - 1) + 1
    return members


_FIELD = re.compile(
    r"(\w+)\s*:\s*(\[?)(\w+)\]?\s*(?:=\s*(-?[\w.]+))?\s*(?:\(\s*(?:id\s*:\s*(\d+)|(deprecated))\s*\))?\s*;"
)


def _fields(body: str, unions: dict) -> tuple[Field, ...]:
    fields, slot, found = [], -1, _FIELD.findall(body)
    for name, bracket, type_name, default, number, deprecated in found:
        slot = int(number) if number else slot + (2 if type_name in unions else 1)
        value = {"": 0, "true": 1, "false": 0}.get(default)
        if not deprecated:
            fields.append(Field(name, slot, type_name, bool(bracket), float(default) if value is None else value))
    if len(found) != body.count(";"):
        raise ValueError(f"cannot understand all fields of the table {{{body}}}")
    return tuple(fields)


def _check_types(schema: Schema) -> None:
    known = {"string", *SCALARS, *schema.enums, *schema.unions, *schema.tables}
    named = {field.type for fields in schema.tables.values() for field in fields} | {schema.root}
    named |= {table for members in schema.unions.values() for table in members.values()}
    if named - known:
        raise ValueError(f"the schema names unknown types: {', '.join(sorted(named - known))}")
