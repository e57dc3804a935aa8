"""Make the C++ reader's structs from the schemas in ``tfptq/tflite``: ``python cpp/generate_reader.py``.

Each table becomes a struct with one member per field and a function that reads it; each enumeration an
``enum class`` with its names; each union a ``std::variant``. The result needs ``flatbuffer.h`` and the standard
library, nothing else.
"""

from pathlib import Path

from tfptq.tflite.schema import Field, Schema, own_schema

HEADERS = Path(__file__).parent / "tfptq"
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
    """C++ header text for a schema.

    Args:
        schema: what to read.
        source: where the schema stands, for the comment at the top.
        guard: name of the include guard.
    """
    parts = [
        f"// Made from {source} by cpp/generate_reader.py. Do not edit.",
        f"#ifndef {guard}\n#define {guard}",
        "#include <cstdint>\n#include <string>\n#include <variant>\n#include <vector>",
        '#include "flatbuffer.h"',
        "namespace tfptq {",
        *(_enumeration(name, *schema.enums[name]) for name in schema.enums),
        *(_union(name, schema) if name in schema.unions else _table(name, schema) for name in _children_first(schema)),
        _root(schema),
        "}  // namespace tfptq",
        f"#endif  // {guard}",
    ]
    return "\n\n".join(parts) + "\n"


def _children_first(schema: Schema) -> list[str]:
    """Names of tables and unions in an order in which each stands behind those it contains."""
    order: list[str] = []

    def visit(name: str) -> None:
        in_union = schema.unions.get(name, {}).values()
        for child in in_union or [field.type for field in schema.tables[name]]:
            if (child in schema.tables or child in schema.unions) and child not in order:
                visit(child)
        order.append(name)

    visit(schema.root)
    return order


def _enumeration(name: str, scalar: str, members: dict[str, int]) -> str:
    listed = "\n".join(f"  {member} = {number}," for member, number in members.items())
    cases = "\n".join(f'    case {name}::{member}: return "{member}";' for member in members)
    return (
        f"enum class {name} : {CPP_TYPES[scalar]} {{\n{listed}\n}};\n\n"
        f"// The name of a member.\n"
        f"inline const char* Name({name} value) {{\n  switch (value) {{\n{cases}\n  }}\n"
        f'  throw FormatError("unknown {name}");\n}}'
    )


def _union(name: str, schema: Schema) -> str:
    members = schema.unions[name]
    types = ", ".join(["std::monostate", *members.values()])
    cases = "\n".join(
        f"    case {number}: return table.Member<{name}>(slot, Read{member});" for number, member in members.items()
    )
    return (
        f"using {name} = std::variant<{types}>;\n\n"
        f"// Nothing where the type is another one or none.\n"
        f"inline {name} Read{name}(const Table& table, int slot) {{\n"
        f"  switch (table.Scalar<uint8_t>(slot - 1, 0)) {{\n{cases}\n  }}\n  return {{}};\n}}"
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
    if field.type in schema.unions:
        return f"Read{field.type}(table, {slot})"
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
    return {
        HEADERS / f"{name}_schema.h": generate(
            own_schema(f"{name}.fbs"), f"tfptq/tflite/{name}.fbs", f"TFPTQ_{name.upper()}_SCHEMA_H_"
        )
        for name in ("blocks", "model")
    }


if __name__ == "__main__":
    for path, text in headers().items():
        path.write_text(text, encoding="utf-8")
