"""Write a FlatBuffers message from plain values; the counterpart of ``flatbuffer.read_message``."""

from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types

from tfptq.tflite.schema import Field, Schema


def write_message(values: Mapping[str, Any], schema: Schema) -> bytes:
    """Write a whole message.

    Args:
        values: field -> value of the root table: a number, a string, numbers or an array for a vector of scalars, a
            list for other vectors, such a mapping for a table, the name of a table and its mapping for a union. What is
            left out or None is absent in the message.
        schema: what the message has to look like.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, schema, schema.root, values), file_identifier=schema.identifier)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, schema: Schema, name: str, values: Mapping[str, Any]) -> int:
    """Write a table behind what it points to; returns its offset."""
    fields = [field for field in schema.tables[name] if values.get(field.name) is not None]
    unknown = set(values) - {field.name for field in schema.tables[name]}
    if unknown:
        raise ValueError(f"the table {name} has no field {', '.join(sorted(unknown))}")
    targets = {
        field.name: _target(builder, schema, field, values[field.name])
        for field in fields
        if field.is_vector or schema.scalar(field.type) is None
    }
    builder.StartObject(1 + max((field.slot for field in schema.tables[name]), default=-1))
    for field in fields:
        if field.type in schema.unions:
            numbers = {table: number for number, table in schema.unions[field.type].items()}
            builder.PrependUint8Slot(field.slot - 1, numbers[values[field.name][0]], 0)
        if field.name in targets:
            builder.PrependUOffsetTRelativeSlot(field.slot, targets[field.name], 0)
        else:
            flags = _flags(schema, field)
            builder.PrependSlot(flags, field.slot, values[field.name], flags.py_type(field.default))
    return builder.EndObject()


def _target(builder: flatbuffers.Builder, schema: Schema, field: Field, value: Any) -> int:
    """Write what a field points to; returns its offset."""
    scalar = schema.scalar(field.type)
    if field.is_vector and scalar is not None:
        return builder.CreateNumpyVector(np.asarray(value, scalar))
    if field.type in schema.unions:
        return _element(builder, schema, *value)
    if not field.is_vector:
        return _element(builder, schema, field.type, value)
    offsets = [_element(builder, schema, field.type, entry) for entry in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _element(builder: flatbuffers.Builder, schema: Schema, type_name: str, value: Any) -> int:
    """Write a string or a table; returns its offset."""
    return builder.CreateString(value) if type_name == "string" else _table(builder, schema, type_name, value)


def _flags(schema: Schema, field: Field):
    """How the library packs a scalar: ``Uint32Flags`` and the like."""
    dtype = np.dtype(schema.scalar(field.type))
    kind = {"i": "Int", "u": "Uint", "f": "Float"}[dtype.kind]
    return getattr(number_types, f"{kind}{8 * dtype.itemsize}Flags")
