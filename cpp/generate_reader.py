"""Make the C++ reader's structs from ``tfptq/tflite/blocks.fbs``: ``python cpp/generate_reader.py``.

Each table becomes a struct with one member per field and a function that reads it; each enumeration an
``enum class`` with its names. The result needs ``flatbuffer.h`` and the standard library, nothing else.
"""

from pathlib import Path

from tfptq.tflite.blocks_schema import blocks_schema
from tfptq.tflite.schema import Field, Schema, parse_schema

HEADERS = Path(__file__).parent / "tfptq"
#: The part of LiteRT's schema that leads to the metadata buffers, and to the tensors that they describe.
MODEL_SCHEMA = """
file_identifier "TFL3";
root_type Model;
table Model { subgraphs:[SubGraph] (id: 2); buffers:[Buffer] (id: 4); metadata:[Metadata] (id: 6); }
table SubGraph { tensors:[Tensor]; }
table Tensor { shape:[int]; type:byte; buffer:uint; name:string; quantization:QuantizationParameters; }
table QuantizationParameters { scale:[float] (id: 2); }
table Buffer { data:[ubyte]; offset:ulong; size:ulong; }
table Metadata { name:string; buffer:uint; }
"""
CPP_TYPES = {
    "bool": "bool",
    "byte": "int8_t",
    "ubyte": "uint8_t",
    "short": "int16_t",
    "ushort": "uint16_t",
    "int": "int32_t",
    "uint": "uint32_t",
    "long": "int64_t",
    "ulong": "uint64_t",
    "float": "float",
    "double": "double",
}


def generate(schema: Schema, source: str, guard: str) -> str:
    """C++ header text for a schema without unions.

    Args:
        schema: what to read.
        source: where the schema stands, for the comment at the top.
        guard: name of the include guard.
    """
    parts = [
        f"// Made from {source} by cpp/generate_reader.py. Do not edit.",
        f"#ifndef {guard}\n#define {guard}",
        "#include <cstdint>\n#include <string>\n#include <vector>",
        '#include "flatbuffer.h"',
        "namespace tfptq {",
        *(_enumeration(name, *schema.enums[name]) for name in schema.enums),
        *(_table(name, schema) for name in _children_first(schema)),
        _root(schema),
        "}  // namespace tfptq",
        f"#endif  // {guard}",
    ]
    return "\n\n".join(parts) + "\n"


def _children_first(schema: Schema) -> list[str]:
    """Table names in an order in which each stands behind those it contains."""
    order: list[str] = []

    def visit(name: str) -> None:
        for field in schema.tables[name]:
            if field.type in schema.tables and field.type not in order:
                visit(field.type)
        order.append(name)

    visit(schema.root)
    return order


def _enumeration(name: str, scalar: str, members: dict[str, int]) -> str:
    listed = ", ".join(f"{member} = {number}" for member, number in members.items())
    cases = "\n".join(f'    case {name}::{member}: return "{member}";' for member in members)
    return (
        f"enum class {name} : {CPP_TYPES[scalar]} {{ {listed} }};\n\n"
        f"// The name of a member.\n"
        f"inline const char* Name({name} value) {{\n  switch (value) {{\n{cases}\n  }}\n"
        f'  throw FormatError("unknown {name}");\n}}'
    )


def _table(name: str, schema: Schema) -> str:
    members = "\n".join(f"  {_member(field, schema)};" for field in schema.tables[name])
    reads = "\n".join(f"  value.{field.name} = {_read(field, schema)};" for field in schema.tables[name])
    names = "\n".join(f"  Name(value.{field.name});" for field in schema.tables[name] if field.type in schema.enums)
    check = f"\n  // Refuses members that are not in the enumeration.\n{names}" if names else ""
    return (
        f"struct {name} {{\n{members}\n}};\n\n"
        f"inline {name} Read{name}(Walk& walk, uint64_t position, int depth) {{\n"
        f"  const Table table(walk, position, depth);\n  {name} value;\n{reads}{check}\n  return value;\n}}"
    )


def _member(field: Field, schema: Schema) -> str:
    if field.is_vector:
        inner = CPP_TYPES.get(field.type, field.type)
        return f"Bytes {field.name}" if field.type == "ubyte" else f"std::vector<{inner}> {field.name}"
    if field.type == "string":
        return f"std::string {field.name}"
    return f"{CPP_TYPES.get(field.type, field.type)} {field.name}{{}}"


def _read(field: Field, schema: Schema) -> str:
    slot = field.slot
    if field.is_vector and field.type in schema.tables:
        return f"table.Tables<{field.type}>({slot}, Read{field.type})"
    if field.is_vector:
        return f"table.View({slot})" if field.type == "ubyte" else f"table.Vector<{CPP_TYPES[field.type]}>({slot})"
    if field.type in schema.tables:
        return f"table.Child<{field.type}>({slot}, Read{field.type})"
    if field.type == "string":
        return f"table.String({slot})"
    if field.type in schema.enums:
        scalar = CPP_TYPES[schema.enums[field.type][0]]
        return f"static_cast<{field.type}>(table.Scalar<{scalar}>({slot}, {int(field.default)}))"
    return f"table.Scalar<{CPP_TYPES[field.type]}>({slot}, {field.default:g})"


def _root(schema: Schema) -> str:
    name = schema.root
    return (
        f"// Reads a whole message. Throws FormatError when it leaves its bytes.\n"
        f"inline {name} Decode{name}(Bytes message) {{\n"
        f'  Walk walk(message, "{schema.identifier.decode()}");\n'
        f"  return Read{name}(walk, walk.Follow(0), 0);\n}}"
    )


def headers() -> dict[Path, str]:
    """Path -> text of the generated headers."""
    blocks = generate(blocks_schema(), "tfptq/tflite/blocks.fbs", "TFPTQ_BLOCKS_SCHEMA_H_")
    model = generate(parse_schema(MODEL_SCHEMA), "the part of LiteRT's schema stated there", "TFPTQ_MODEL_SCHEMA_H_")
    return {HEADERS / "blocks_schema.h": blocks, HEADERS / "model_schema.h": model}


if __name__ == "__main__":
    for path, text in headers().items():
        path.write_text(text, encoding="utf-8")
