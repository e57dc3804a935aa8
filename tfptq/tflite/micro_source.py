"""C++ sources of a ``.tflite`` file for TFLite Micro: the file, its operators, grids and arena, and golden values."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tfptq.ops.micro import MICRO_METHODS
from tfptq.tflite.interface import InterfaceRow, read_interface
from tfptq.tflite.model_reader import read_model

_BYTES_PER_LINE, _VALUES_PER_LINE = 16, 16
_INTEGERS = ("int8", "uint8", "int16", "int32", "int64")
_TYPES = {"float32": "float", "bool": "bool", **{name: f"{name}_t" for name in _INTEGERS}}


@dataclass(frozen=True, eq=False)
class Golden:
    """Inputs and what TFLite Micro makes of them.

    Attributes:
        inputs: for each input of the file values ``[samples, ...]`` of its type.
        outputs: the same for the outputs.
    """

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


def micro_methods(content: bytes) -> list[str]:
    """Methods of a ``MicroMutableOpResolver`` that add the operators of a file, each once, sorted.

    Raises:
        ValueError: TFLite Micro has no kernel for some operator.
    """
    kinds = {operator.kind for graph in read_model(content).subgraphs for operator in graph.operators}
    missing = sorted(kinds - MICRO_METHODS.keys())
    if missing:
        raise ValueError(
            f"TFLite Micro has no kernel for {', '.join(missing)}: quantize with target='micro', and replace the "
            "layers that these are made of"
        )
    return sorted(MICRO_METHODS[kind] for kind in kinds)


def micro_header(content: bytes, name: str, arena_bytes: int | None) -> str:
    """Text of ``<name>.h``: namespace ``name`` with constants, the declaration of the file, and its operators."""
    rows = read_interface(read_model(content))
    methods = micro_methods(content)
    guard = f"{name.upper()}_H_"
    lines = [
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <cstdint>",
        "",
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
        "",
        f"namespace {name} {{",
        "",
        f"// The .tflite file, in {name}.cc.",
        f"constexpr unsigned int kModelBytes = {len(content)};",
        "extern const unsigned char kModel[kModelBytes];",
        *_arena(arena_bytes),
        *(line for end in ("input", "output") for line in _ends([row for row in rows if row.end == end], end)),
        "",
        "// Operators of the file.",
        f"constexpr unsigned int kOperators = {len(methods)};",
        "using Resolver = tflite::MicroMutableOpResolver<kOperators>;",
        "inline TfLiteStatus AddOperators(Resolver& resolver) {",
        *(f"  TF_LITE_ENSURE_STATUS(resolver.{method}());" for method in methods),
        "  return kTfLiteOk;",
        "}",
        "",
        f"}}  // namespace {name}",
        "",
        f"#endif  // {guard}",
    ]
    return "\n".join(lines) + "\n"


def _arena(arena_bytes: int | None) -> Iterator[str]:
    if arena_bytes is not None:
        yield ""
        yield "// What the arena takes with reference kernels and 64-bit pointers; 32-bit ones take less. Optimized"
        yield "// kernels may ask for buffers beyond it: MicroInterpreter::arena_used_bytes() tells on the device."
        yield f"constexpr unsigned int kArenaBytes = {arena_bytes};"


def _ends(rows: Sequence[InterfaceRow], end: str) -> Iterator[str]:
    """Constants of all inputs or all outputs, indexed as in ``MicroInterpreter::input``."""
    prefix = f"k{end.capitalize()}"
    yield ""
    for row in rows:
        yield f"// {end} {row.index}: {row.name!r} {row.dtype} [{', '.join(str(size or 1) for size in row.shape)}]"
    yield f"constexpr unsigned int {prefix}Sizes[] = {{{', '.join(str(_size(row)) for row in rows)}}};"
    if all(row.scale is not None for row in rows):
        yield "// Real value = (code - zero point) * scale."
        yield f"constexpr float {prefix}Scales[] = {{{', '.join(_float(row.scale or 0.0) for row in rows)}}};"
        yield f"constexpr int32_t {prefix}ZeroPoints[] = {{{', '.join(str(row.zero_point) for row in rows)}}};"


def _size(row: InterfaceRow) -> int:
    return int(np.prod([size or 1 for size in row.shape], dtype=np.int64))


def _float(value: float) -> str:
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if re.search(r"[.e]", text) else f"{text}.0f"


def micro_array(content: bytes, name: str) -> str:
    """Text of ``<name>.cc``: the file as an array, aligned as flatbuffers need it."""
    body = (
        "    " + ", ".join(f"0x{byte:02x}" for byte in content[start : start + _BYTES_PER_LINE]) + ","
        for start in range(0, len(content), _BYTES_PER_LINE)
    )
    head = [f'#include "{name}.h"', "", f"namespace {name} {{", ""]
    array = ["alignas(16) const unsigned char kModel[kModelBytes] = {", *body, "};"]
    return "\n".join([*head, *array, "", f"}}  // namespace {name}"]) + "\n"


def micro_golden(content: bytes, name: str, golden: Golden) -> str:
    """Text of ``<name>_golden.h``: inputs, and the outputs that reference kernels give."""
    rows = read_interface(read_model(content))
    ends = {end: [row for row in rows if row.end == end] for end in ("input", "output")}
    guard = f"{name.upper()}_GOLDEN_H_"
    arrays = [
        *_golden_arrays(ends["input"], golden.inputs, "Input"),
        *_golden_arrays(ends["output"], golden.outputs, "Output"),
    ]
    count = f"constexpr unsigned int kGoldenSamples = {len(golden.inputs[0])};"
    head = [f"#ifndef {guard}", f"#define {guard}", "", "#include <cstdint>", "", f"namespace {name} {{", "", count]
    return "\n".join([*head, *arrays, "", f"}}  // namespace {name}", "", f"#endif  // {guard}"]) + "\n"


def _golden_arrays(rows: Iterable[InterfaceRow], values: Sequence[np.ndarray], end: str) -> Iterator[str]:
    for row, samples in zip(rows, values, strict=True):
        yield ""
        yield f"constexpr {_TYPES[row.dtype]} kGolden{end}{row.index}[kGoldenSamples][{_size(row)}] = {{"
        for sample in samples.reshape(len(samples), -1):
            texts = [_float(it) if sample.dtype == np.float32 else str(int(it)) for it in sample]
            parts = (", ".join(texts[at : at + _VALUES_PER_LINE]) for at in range(0, len(texts), _VALUES_PER_LINE))
            yield "    {" + ",\n     ".join(parts) + "},"
        yield "};"


def random_inputs(content: bytes, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Random values for each input of a file, ``[count, 1, ...]``: all codes, normal numbers, and small indexes."""
    rows, rng = read_interface(read_model(content)), np.random.default_rng(seed)
    return tuple(_random(row, count, rng) for row in rows if row.end == "input")


def _random(row: InterfaceRow, count: int, rng: np.random.Generator) -> np.ndarray:
    shape, dtype = (count, *(size or 1 for size in row.shape)), np.dtype(row.dtype)
    if dtype == np.float32:
        return rng.normal(size=shape).astype(np.float32)
    if row.scale is None:
        return rng.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def coded_inputs(content: bytes, samples: np.ndarray) -> tuple[np.ndarray]:
    """Real values ``[N, ...]`` of the only input of a file, as that holds them, ``[N, 1, ...]``.

    Raises:
        ValueError: the file has several inputs, or one of another shape.
    """
    inputs = [row for row in read_interface(read_model(content)) if row.end == "input"]
    shape = tuple(size or 1 for size in inputs[0].shape)
    if len(inputs) != 1 or samples.shape[1:] != shape[1:] or shape[0] != 1:
        wanted = ", ".join(f"{row.name} {list(row.shape)}" for row in inputs)
        raise ValueError(f"samples of shape {list(samples.shape)} do not fit the inputs of the file: {wanted}")
    row, dtype = inputs[0], np.dtype(inputs[0].dtype)
    if row.scale is None:
        return (samples[:, None].astype(dtype),)
    limits = np.iinfo(dtype)
    codes = np.clip(np.rint(samples / row.scale) + (row.zero_point or 0), limits.min, limits.max)
    return (codes[:, None].astype(dtype),)
