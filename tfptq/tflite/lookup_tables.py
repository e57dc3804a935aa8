"""Kernels as lookup tables, which TFLite Micro's operator ``TFLM_DECODE`` unpacks before they are read.

A kernel of INT8 with few distinct values becomes ``b`` bits for each weight, packed from the highest bit of a byte on,
and a table of the values. The format is that of ``tensorflow/lite/micro/compression/lut.py`` and
``tensorflow/lite/micro/kernels/decode_state_lut.cc``. TFLite Micro's own compressor (package ``tflite-micro``) writes
a table for each channel, or a single one that its kernels (2026-10) read as if there were one for each. Codes of few
bits are the same integers in all channels, so a single table does, with a stride of 0 from channel to channel.
"""

import os

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.tflite.metadata import METADATA_KEY, load_bytes
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import read_model

DECODE = "TFLM_DECODE"
#: Operators whose kernels in TFLite Micro read weights at run time only, and the place of the weights in their inputs.
_KERNELS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
#: Widest index that the format has.
_MOST_BITS = 7
#: About what a file takes for a DECODE operator and its tensors beside the codes: a kernel has to save more.
_OPERATOR_BYTES = 256
#: Decode type LUT, version 1 of the metadata, 2 unused bytes, version 1 of LUT.
_TABLE_HEAD = (0, 1, 0, 0, 1)
#: "One table for all channels", in the upper half of the byte that has the width in the lower one.
_ONE_TABLE = 0xF0


def compress_for_micro(file: bytes | str | os.PathLike, *, largest_kernel: int | None = None) -> bytes:
    """Replace the INT8 kernels of a file by lookup tables where that is smaller: less flash for more RAM.

    Kernels of less than 8 bits that lie in INT8 (target ``"npu"``) then take their bits. The outputs stay the same to
    the bit. The result runs in TFLite Micro only, and has no block metadata. Each kernel is unpacked into the arena
    while its operator runs.

    Args:
        file: bytes or path of a quantized ``.tflite`` file.
        largest_kernel: leave kernels of more weights than that as they are, which bounds the RAM to unpack them; None
            for all.

    Raises:
        ValueError: no kernel becomes smaller.
        FormatError: the file is damaged.
        OSError: the path cannot be read.

    Examples:
        >>> config = tfptq.QuantizationConfig.from_preset("w4a8_channel").replace(weight_bits=3, target="npu")
        >>> result = tfptq.quantize_keras_model(model, images[:256], config)
        >>> pathlib.Path("net.tflite").write_bytes(tfptq.compress_for_micro(result.tflite))
    """
    data = load_bytes(file)
    read_model(data)  # refuses damaged files
    model = TFLiteModel(data)
    codes = {index: model.constant(index) for index in _kernels(model)}
    if largest_kernel is not None:
        codes = {index: array for index, array in codes.items() if array.size <= largest_kernel}
    kernels = [index for index, array in codes.items() if _saved_bytes(array) > _OPERATOR_BYTES]
    if not kernels:
        raise ValueError(
            "no INT8 kernel of the file becomes smaller by a lookup table; quantize with weight_bits below 8 and "
            "target='npu', which leaves the codes in INT8"
        )
    for index in kernels:
        _decode_at_run_time(model, index)
    model.root.metadata = [entry for entry in model.root.metadata or [] if not _is_block_metadata(entry)]
    model.remove_unused()
    return model.to_bytes()


def index_bits(codes: np.ndarray) -> int:
    """Bits that tell the distinct values of an array apart, at least 1."""
    return max(1, int(np.unique(codes).size - 1).bit_length())


def _kernels(model: TFLiteModel) -> list[int]:
    """Constant INT8 tensors that are read as weights and as nothing else."""
    consumers = model.consumers()
    found = []
    for index, readers in consumers.items():
        is_int8 = index >= 0 and model.tensors[index].type == schema.TensorType.INT8
        if is_int8 and model.is_constant(index) and all(_reads_weights(model, at, index) for at in readers):
            found.append(index)
    return [index for index in found if index not in model.subgraph.outputs]


def _reads_weights(model: TFLiteModel, position: int, index: int) -> bool:
    operator = model.operators[position]
    place = _KERNELS.get(model.operator_name(operator))
    return [at for at, source in enumerate(operator.inputs) if source == index] == [place]


def _saved_bytes(codes: np.ndarray) -> int:
    """Bytes that a lookup table saves, without those of its operator; 0 where there can be none."""
    bits = index_bits(codes)
    packed = -(-codes.size * bits // 8) + np.unique(codes).size
    return codes.size - packed if bits <= _MOST_BITS else 0


def _decode_at_run_time(model: TFLiteModel, index: int) -> None:
    """Turn a constant tensor into the result of a DECODE operator in front of the first that reads it."""
    values, indexes = np.unique(model.constant(index), return_inverse=True)
    bits = index_bits(values)
    encoded = model.shared_constant("codes", _packed(indexes.reshape(-1), bits))
    head = np.array([*_TABLE_HEAD, _ONE_TABLE | bits, *10 * [0]], np.uint8)
    table = model.shared_constant("table", np.concatenate([head, values.view(np.uint8)]))
    first = model.consumers()[index][0]
    model.tensors[index].buffer = 0
    operator = schema.OperatorT()
    operator.opcodeIndex = _decode_code(model)
    operator.inputs, operator.outputs = [encoded, table], [index]
    model.operators.insert(first, operator)


def _packed(indexes: np.ndarray, bits: int) -> np.ndarray:
    """Indexes ``[N]`` as uint8, each in a number of bits, the highest first."""
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((indexes[:, None] >> places & 1).astype(np.uint8))


def _decode_code(model: TFLiteModel) -> int:
    """Index of the operator code of DECODE, appended when it is new."""
    for at, code in enumerate(model.root.operatorCodes):
        if code.customCode in (DECODE, DECODE.encode()):
            return at
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = DECODE, 1
    model.root.operatorCodes.append(code)
    return len(model.root.operatorCodes) - 1


def _is_block_metadata(entry) -> bool:
    return entry.name in (METADATA_KEY, METADATA_KEY.encode())
