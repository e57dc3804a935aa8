"""A float ``.tflite`` file that somebody else made, as a model that can be rewritten; what cannot be is refused."""

import struct
from collections import Counter

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.base.text import unique_name
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import TYPE_NAMES, read_model

#: Operators that run another subgraph, or keep values between calls.
_CONTROL_FLOW = ("WHILE", "IF", "CALL", "CALL_ONCE")
_STATE = ("ASSIGN_VARIABLE", "READ_VARIABLE", "VAR_HANDLE")


def read_float_model(data: bytes, name: str, signature: str | None = None) -> TFLiteModel:
    """Read a float file, with one signature, one name for each tensor, and float32 constants.

    Args:
        data: the file.
        name: of the file, for messages.
        signature: key of the signature to take; the first by default.

    Raises:
        FormatError: no ``.tflite`` file, or a damaged one.
        ValueError: it is quantized, keeps a state, or has no such signature.
    """
    try:
        return _read(data, name, signature)
    # The generated schema checks nothing of what read_model leaves out.
    except (FormatError, struct.error, LookupError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise FormatError(f"{name} is no .tflite file that can be read: {error}") from error


def _read(data: bytes, name: str, signature: str | None) -> TFLiteModel:
    if not all(subgraph.operators for subgraph in read_model(data).subgraphs):
        raise FormatError("it has no operators")
    model = TFLiteModel(data)
    _take_signature(model, name, signature)
    _release_empty_buffers(model)
    _widen_float16(model)
    _refuse_operators(model, name)
    _refuse_quantized(model, name)
    _name_tensors(model)
    if not (model.subgraph.inputs and model.subgraph.outputs):
        raise ValueError(f"{name} has no inputs or no outputs; there is nothing to calibrate it with")
    return TFLiteModel(model.to_bytes())


def reads_lost_variables(data: bytes) -> bool:
    """Whether a file reads variables that it never writes: the converter did not find their values.

    That happens in SavedModels whose root does not track the variables, such as ``tf.saved_model.save`` of Keras 3
    models.
    """
    model = TFLiteModel(data)
    kinds = {model.operator_name(operator) for subgraph in model.root.subgraphs for operator in subgraph.operators}
    return "READ_VARIABLE" in kinds and "ASSIGN_VARIABLE" not in kinds


def main_signature(model: TFLiteModel):
    """The signature of the main subgraph, or None."""
    return next((each for each in model.root.signatureDefs or [] if each.subgraphIndex == 0), None)


def _take_signature(model: TFLiteModel, name: str, wanted: str | None) -> None:
    """Leave one signature, whose subgraph becomes the main one."""
    for each in model.root.signatureDefs or []:
        tensors = len(model.root.subgraphs[each.subgraphIndex].tensors) if _in_range(model, each) else 0
        entries = [*(each.inputs or []), *(each.outputs or [])]
        if each.signatureKey is None or not all(0 <= entry.tensorIndex < tensors and entry.name for entry in entries):
            raise FormatError(
                f"{name} is no .tflite file that can be read: a signature names tensors that are not there"
            )
    signatures = {each.signatureKey.decode(): each for each in model.root.signatureDefs or []}
    if wanted is not None and wanted not in signatures:
        listed = ", ".join(map(repr, signatures)) or "none"
        raise ValueError(f"{name} has no signature {wanted!r}; its signatures: {listed}")
    if not signatures:
        return
    chosen = signatures[wanted] if wanted is not None else next(iter(signatures.values()))
    if len(signatures) > 1:
        kinds = {model.operator_name(operator) for subgraph in model.root.subgraphs for operator in subgraph.operators}
        if kinds.intersection(_CONTROL_FLOW):
            raise ValueError(
                f"{name} has several signatures and the control flow {', '.join(kinds.intersection(_CONTROL_FLOW))}; "
                "convert each signature into a file of its own"
            )
        model.root.subgraphs = [model.root.subgraphs[chosen.subgraphIndex]]
        chosen.subgraphIndex = 0
    model.root.signatureDefs = [chosen]


def _in_range(model: TFLiteModel, signature) -> bool:
    return 0 <= signature.subgraphIndex < len(model.root.subgraphs)


def _release_empty_buffers(model: TFLiteModel) -> None:
    """Old converters gave activations buffers of no bytes, which look like constants."""
    for subgraph in model.root.subgraphs:
        for tensor in subgraph.tensors:
            buffer = model.root.buffers[tensor.buffer]
            holds_values = tensor.shape is None or bool(np.all(tensor.shape))
            if buffer.data is not None and not len(buffer.data) and holds_values:
                buffer.data = None


def _widen_float16(model: TFLiteModel) -> None:
    """Make float32 constants of float16 ones, which the converter stores with a DEQUANTIZE behind each."""
    kept = []
    for operator in model.operators:
        source = operator.inputs[0] if operator.inputs else -1
        halved = source >= 0 and model.tensors[source].type == schema.TensorType.FLOAT16
        if model.operator_name(operator) == "DEQUANTIZE" and halved and model.is_constant(source):
            model.tensors[operator.outputs[0]].buffer = model.add_buffer(model.constant(source).astype(np.float32))
        else:
            kept.append(operator)
    model.operators[:] = kept


def _refuse_operators(model: TFLiteModel, name: str) -> None:
    for operator in model.operators:
        kind = model.operator_name(operator)
        if kind == "CUSTOM":
            code = model.root.operatorCodes[operator.opcodeIndex].customCode
            custom = code.decode() if isinstance(code, bytes) else str(code)
            if custom.startswith("Flex"):
                raise ValueError(
                    f"{name} needs the operator {custom.removeprefix('Flex')} of TensorFlow (Flex), which LiteRT alone "
                    "does not run; convert the model again with built-in operators only"
                )
        if kind in _STATE:
            raise ValueError(
                f"{name} keeps values between calls ({kind}); let the model take and return its state instead"
            )


def _refuse_quantized(model: TFLiteModel, name: str) -> None:
    """Refuse a file that holds codes: their scales are not ours to change."""
    codes = Counter(
        TYPE_NAMES[tensor.type]
        for tensor in model.tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.quantization.scale)
    )
    if codes:
        kind, count = codes.most_common(1)[0]
        raise ValueError(
            f"{name} is quantized already: {count} of its tensors are {kind} with scales. Pass the float file: convert "
            "the model without optimizations and without a representative dataset"
        )
    results = {index for operator in model.operators for index in operator.outputs}
    if any(model.tensors[index].type == schema.TensorType.FLOAT16 for index in results):
        raise ValueError(f"{name} computes in float16; convert the model again in float32")


def _name_tensors(model: TFLiteModel) -> None:
    """Give each tensor a name of its own: samples, signatures and metadata go by them."""
    taken: set[str] = set()
    for number, subgraph in enumerate(model.root.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
            tensor.name = unique_name(name or f"tensor_{number}_{index}", taken)
            taken.add(tensor.name)
