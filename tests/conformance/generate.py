"""Make the conformance files: ``PYTHONPATH=.:tests python tests/conformance/generate.py``.

Each file is a small network with one described kernel, its JSON what a reader has to find in it. ``README.md`` tells
what the fields mean.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from conformance.bad_files import REFUSED, UNVERIFIED
from hand_made import VIEWS, FileBuilder, half_scales, random_weight

from tfptq.base.json_object import read_object
from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.npu import Executor, compare_with_stock
from tfptq.tflite.digest import content_digest
from tfptq.tflite.layouts import (
    COMPOSITE,
    FULLY_CONNECTED_INT2,
    FULLY_CONNECTED_INT4,
    IM2COL_INT2,
    IM2COL_INT4,
    INLINE,
    INT4,
    INT8,
    NATIVE,
    WEIGHTS_ONLY,
    Computes,
)
from tfptq.tflite.metadata import metadata_of
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.stored_codes import stored_codes
from tfptq.tflite.tensor_blocks import TensorBlocks

FOLDER = Path(__file__).parent
_WINDOW = {"strideW": 1, "strideH": 1}


def _layer(
    kind: str,
    shape: tuple[int, ...],
    input_shape: tuple[int, ...],
    layout=INT8,
    scales="float",
    block=None,
    bits=4,
    **more,
) -> FileBuilder:
    view = VIEWS[kind](shape)
    weight = random_weight(np.random.default_rng(0), view, scales, block, bits, more.pop("shared_base", True))
    options = {} if kind == "FULLY_CONNECTED" else dict(_WINDOW)
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = shape[3] // input_shape[3]
    if layout is NATIVE:
        weight = half_scales(weight)
    builder, options = FileBuilder(input_shape), options | more
    if Computes.INTEGER not in layout.serves:
        return builder.float_layer(kind, weight, view, layout, name="net/layer_1", **options)
    reader = kind if layout.keeps_shape else "FULLY_CONNECTED"
    return builder.layer(reader, weight, view, layout=layout, name="net/layer_1", **options)


def _as_dense(shape: tuple[int, ...], layout, **scales) -> FileBuilder:
    """A convolution in the form of a FULLY_CONNECTED on what its outputs read."""
    view = VIEWS["CONV_2D"](shape)
    weight = random_weight(np.random.default_rng(0), view, **scales)
    builder = FileBuilder((3, int(np.prod(shape[1:]))))
    return builder.layer("FULLY_CONNECTED", weight, view, layout=layout, name="conv", grid=(0.01, 5))


def _worked_example() -> FileBuilder:
    """The example in docs/format.md."""
    view = VIEWS["FULLY_CONNECTED"]((4, 4))
    codes = np.int8([[1, -2, 3, 0], [4, 5, -6, 7], [-8, 2, 1, 1], [0, 3, -4, 2]])
    scales = BlockScales("integer", np.float32([0.5, 0.25]), np.int8([[1, 3], [2, 1]]), (2, 2))
    weight = QuantizedWeight(codes[:, :, None], scales, 4)
    builder = FileBuilder((1, 4), scale=0.5, zero_point=-1)
    return builder.layer("FULLY_CONNECTED", weight, view, np.array([10, -20, 30, 0]), (4.0, 3), name="dense")


def _sixteen_bits() -> FileBuilder:
    builder = _layer("FULLY_CONNECTED", (4, 6), (2, 6), scales="shift", bits=8)
    tensors = builder.graph.tensors
    for index in (builder.graph.inputs[0], builder.last):
        tensors[index].type, tensors[index].quantization.zeroPoint = schema.TensorType.INT16, np.int64([0])
    bias = tensors[builder.graph.operators[0].inputs[2]]
    bias.type, buffer = schema.TensorType.INT64, builder.model.buffers[bias.buffer]
    buffer.data = np.frombuffer(buffer.data.view(np.int32).astype(np.int64).tobytes(), np.uint8)
    return builder


#: Name of a file -> how it is made.
FILES: dict[str, Callable[[], FileBuilder]] = {
    "worked_example": _worked_example,
    "int8": lambda: _layer("CONV_2D", (5, 2, 3, 4), (1, 5, 6, 4), bits=8),
    "int8_shift_scaler": lambda: _layer(
        "DEPTHWISE_CONV_2D", (1, 3, 3, 4), (1, 5, 5, 2), scales="shift", bits=8, grid=(0.01, 5)
    ),
    "int8_shift_blocks": lambda: _layer(
        "TRANSPOSE_CONV",
        *((5, 3, 2, 6), (1, 4, 4, 6)),
        **{"scales": "shift", "block": (2, 4), "shared_base": False, "bits": 3, "output_shape": (1, 8, 7, 5)},
        **{"strideW": 2, "strideH": 2, "grid": (0.01, -4)},
    ),
    "int8_integer_blocks": lambda: _layer(
        "CONV_2D", (5, 1, 1, 7), (1, 3, 3, 7), scales="integer", block=(2, 3), shared_base=False
    ),
    "int4": lambda: _layer("DEPTHWISE_CONV_2D", (1, 3, 3, 5), (1, 5, 5, 5), INT4),
    "native": lambda: _layer("FULLY_CONNECTED", (4, 64), (2, 64), NATIVE, block=(1, 32), output_shape=(2, 4)),
    "inline": lambda: _layer("CONV_2D", (5, 1, 2, 6), (1, 4, 4, 6), INLINE, block=(2, 4), output_shape=(1, 4, 4, 5)),
    "inline_integer_blocks": lambda: _layer(
        "FULLY_CONNECTED", (6, 4), (2, 6), INLINE, "integer", (3, 2), 6, shared_base=False, output_shape=(2, 6)
    ),
    "composite": lambda: _layer(
        "CONV_2D", (4, 1, 2, 6), (1, 4, 4, 6), COMPOSITE, "shift", (2, 3), 3, output_shape=(1, 4, 4, 4)
    ),
    "fully_connected_int4": lambda: _layer(
        "FULLY_CONNECTED", (5, 6), (3, 6), FULLY_CONNECTED_INT4, output_shape=(3, 5)
    ),
    "fully_connected_int2": lambda: _as_dense((4, 1, 1, 8), FULLY_CONNECTED_INT2, kind="float", bits=2),
    "im2col_int4": lambda: _as_dense((4, 2, 2, 3), IM2COL_INT4, kind="shift", bits=4),
    "im2col_int2": lambda: _as_dense((4, 1, 2, 4), IM2COL_INT2, kind="float", block=(2, 4), bits=2),
    "weights_only": lambda: _layer("CONV_2D", (5, 1, 2, 6), (1, 4, 4, 6), WEIGHTS_ONLY, output_shape=(1, 4, 4, 5)),
    "int16_activations": _sixteen_bits,
}


#: Files that were made by older releases, and are kept.
KEPT = ("version_1",)
#: Input codes that are not random.
INPUTS = {"worked_example": np.int8([[1, -3, 5, 0]])}


def expected(file: bytes, inputs: np.ndarray | None = None) -> dict[str, Any]:
    """What a reader has to find in a file; ``inputs`` are the codes that its first layer shall run on."""
    model = read_model(file)
    metadata = metadata_of(model)
    if metadata is None:
        raise ValueError("the file carries no metadata")
    return {
        "schema_version": metadata.schema_version,
        "config": read_object(metadata.config),
        "seed": metadata.seed,
        "packages": metadata.versions,
        "digest": content_digest(model).hex(),
        "weights": [_weight(blocks, stored_codes(blocks, model)) for blocks in metadata.tensors],
        "run": _run(file, inputs),
    }


def _weight(blocks: TensorBlocks, codes: np.ndarray) -> dict[str, Any]:
    return {
        "subgraph": blocks.subgraph,
        "tensor": blocks.tensor,
        "tensor_name": blocks.tensor_name,
        "layer": blocks.layer,
        "bits": blocks.bits,
        "granularity": blocks.granularity,
        "scale_kind": blocks.scale_kind,
        "layout": blocks.layout.format_name,
        "shape": list(blocks.shape),
        "output_axis": blocks.output_axis,
        "input_axes": list(blocks.input_axes),
        "block_outputs": blocks.block_shape[0],
        "block_inputs": blocks.block_shape[1],
        "scales_tensor": blocks.scales_tensor,
        "base": blocks.base.astype(float).tolist(),
        "factors": blocks.factors.astype(float if blocks.scale_kind == "float" else int).tolist(),
        "scales": blocks.scales().values().astype(float).tolist(),
        "codes": codes.reshape(-1).tolist(),
    }


def _run(file: bytes, codes: np.ndarray | None) -> dict[str, Any] | None:
    """Input and output codes of the first layer that runs in integers of 8 bits."""
    executor = Executor(file)
    if not executor.layers:
        return None
    first = executor.layers[0]
    shape = read_model(file).subgraphs[0].tensors[first.input].shape
    codes = np.random.default_rng(1).integers(-64, 64, shape).astype(np.int8) if codes is None else codes
    output = executor.run_layer(0, codes).output
    in_stock = Computes.DYNAMIC is not first.blocks.layout.serves[0]  # whose reference kernel computes zeros
    difference = compare_with_stock(file, codes)[0].largest_difference if in_stock else None
    return {
        "layer": first.name,
        "operator": first.operator,
        "input": {"shape": list(codes.shape), "codes": codes.reshape(-1).tolist()},
        "output": {"shape": list(output.shape), "codes": output.reshape(-1).tolist()},
        "largest_difference_of_stock_kernels": difference,
    }


def text(values: dict[str, Any]) -> str:
    """JSON with each list of numbers in one line."""
    spread = json.dumps(values, indent=1)
    return re.sub(r'\[\s+([^\[\]{}"]+?)\s+\]', lambda found: f"[{' '.join(found[1].split())}]", spread) + "\n"


def write() -> None:
    """Write all files."""
    for name, make in FILES.items():
        (FOLDER / f"{name}.tflite").write_bytes(make().finish())
    for name in (*FILES, *KEPT):
        values = expected((FOLDER / f"{name}.tflite").read_bytes(), INPUTS.get(name))
        (FOLDER / f"{name}.json").write_text(text(values), encoding="utf-8")
    for folder, files in (("refused", REFUSED), ("unverified", UNVERIFIED)):
        (FOLDER / folder).mkdir(exist_ok=True)
        for name, (_, make) in files.items():
            (FOLDER / folder / f"{name}.tflite").write_bytes(make())
        reasons = {name: reason for name, (reason, _) in sorted(files.items())}
        (FOLDER / folder / "reasons.json").write_text(json.dumps(reasons, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
