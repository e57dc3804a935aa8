"""Turn a .tflite file into a C++ source file, and print the operators that its interpreter must register.

python examples/microcontroller/to_c_array.py net.tflite model_data.cc
"""

import argparse
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

BYTES_PER_LINE = 16


def to_c_array(content: bytes, name: str) -> str:
    """C++ text that defines ``name`` and ``name_size``; 16-byte aligned, as flatbuffers need it."""
    lines = [
        "  " + ", ".join(f"0x{byte:02x}" for byte in content[start : start + BYTES_PER_LINE]) + ","
        for start in range(0, len(content), BYTES_PER_LINE)
    ]
    return "\n".join(
        [
            f"extern const unsigned char {name}[];",
            f"extern const unsigned int {name}_size;",
            f"alignas(16) const unsigned char {name}[] = {{",
            *lines,
            "};",
            f"const unsigned int {name}_size = {len(content)};",
            "",
        ]
    )


def operator_names(content: bytes) -> list[str]:
    """Names of the operators in the file, each once, sorted."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(content)
    found = {
        item.customCode.decode() if item.customCode else names[max(item.builtinCode, item.deprecatedBuiltinCode)]
        for item in model.operatorCodes
    }
    return sorted(found)


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="the .tflite file")
    parser.add_argument("output", type=Path, help="the C++ file to write")
    parser.add_argument("--name", default="model_data", help="name of the array")
    arguments = parser.parse_args()

    content = arguments.model.read_bytes()
    arguments.output.write_text(to_c_array(content, arguments.name), encoding="ascii")
    print(f"wrote {arguments.output} ({len(content):,} bytes); operators: {', '.join(operator_names(content))}")


if __name__ == "__main__":
    main()
