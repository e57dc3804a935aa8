"""Put what was fitted into the Keras simulation: codes, biases and activation grids of the wrappers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.config import QuantizationConfig
from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.fit.measurements import Measurements
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.graph.float_equality import model_outputs, relative_difference
from tfptq.layers import QuantizedActivation, QuantizedVariable, QuantizeWrapper, wrappers
from tfptq.lowering.clipped_ranges import cut_ranges
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.tflite.runtime import TensorRunner

#: Relative difference below which a tensor of the file holds what a layer reads or writes. Float32 rounding makes much
#: less of it, and a constant that the converter fused much more, unless it hardly matters.
SAME_VALUES = 1e-2
#: The same for biases, relative to the largest.
SAME_BIAS = 1e-3


@dataclass(frozen=True)
class Fusion:
    """A use of a kernel into which the converter put a constant factor or summand beside the layer.

    Attributes:
        same_input: whether the operator reads what the layer reads; if not, the constant came before the layer.
        same_output: whether it writes what the layer writes.
        offset: the number that was added before the layer.
    """

    same_input: bool
    same_output: bool
    offset: float = 0.0


def find_fusions(
    model: keras.Model,
    simulation: keras.Model,
    float_file: FloatFile,
    kernels: Mapping[KernelId, Kernel],
    samples: Mapping[str, np.ndarray],
) -> dict[int, Fusion]:
    """Find the constants that the converter fused into kernels, by their biases and by what is computed.

    Args:
        model: canonical float Keras model.
        simulation: the same with wrappers, whose biases are still those of the float model.
        float_file: float model in the file.
        kernels: the kernels that get codes.
        samples: Keras input name -> array.

    Returns:
        Position of an operator -> what was fused into it.
    """
    found = {}
    for wrapper in wrappers(simulation):
        for slot in wrapper.quantized_weights:
            for use in _uses(kernels, wrapper, slot):
                if _holds_more_than_the_layer(slot, use):
                    layer = model.get_layer(wrapper.layer.name)
                    tensors = use.input, _output_tensor(float_file, wrapper, use)
                    found[use.operator] = _fusion(model, layer, float_file, tensors, samples)
    return found


def _holds_more_than_the_layer(slot: QuantizedVariable, use: KernelUse) -> bool:
    """Whether a use of a kernel computes something else than the layer does."""
    if use.row_factors is not None:
        return True
    own = 0.0 if slot.bias is None else keras.ops.convert_to_numpy(slot.bias).reshape(-1)
    held = np.zeros_like(own) if use.bias is None else use.bias
    return not np.allclose(held, own, rtol=SAME_BIAS, atol=SAME_BIAS * (np.abs(held).max(initial=0.0) or 1.0))


def _uses(
    kernels: Mapping[KernelId, Kernel], wrapper: QuantizeWrapper, slot: QuantizedVariable
) -> tuple[KernelUse, ...]:
    """The uses of a wrapped layer's weight in the file."""
    kernel = kernels.get(KernelId(wrapper.layer.name, slot.name))
    return () if kernel is None else kernel.uses


def _fusion(
    model: keras.Model,
    layer: keras.Layer,
    float_file: FloatFile,
    tensors: tuple[int, int | None],
    samples: Mapping[str, np.ndarray],
) -> Fusion:
    """What is beside a layer, by whether tensors of the file hold its input and its output."""
    if len(layer._inbound_nodes) != 1:
        return Fusion(False, False)
    if isinstance(layer.input, list | dict):
        return Fusion(True, False)  # an attention layer; what the converter fuses into its kernels is its own
    expected = model_outputs(keras.Model(model.inputs, [layer.input, layer.output]), samples)
    wanted = {index for index in tensors if index is not None}
    runner = TensorRunner(float_file.data, wanted)
    found = runner.values_in_parts(float_file.by_tensor_name(samples), float_file.batch_size)
    same_input, same_output = (
        index is not None
        and found[index].size == values.size
        and relative_difference(values.reshape(-1), found[index].reshape(-1)) < SAME_VALUES
        for values, index in zip(expected, tensors, strict=True)
    )
    known = not same_input and tensors[0] in found and found[tensors[0]].size == expected[0].size
    return Fusion(same_input, same_output, _offset(expected[0], found[tensors[0]]) if known else 0.0)


def _offset(values: np.ndarray, held: np.ndarray) -> float:
    """``b`` of ``values = a * held + b`` where they are so related, else 0: the converter fuses no more than that."""
    values, held = (array.reshape(-1).astype(np.float64) for array in (values, held))
    if np.ptp(held) == 0:
        return 0.0
    factor, offset = np.polyfit(held, values, 1)
    return float(offset) if relative_difference(values, factor * held + offset) < SAME_VALUES else 0.0


def assign_weights_to_wrappers(
    simulation: keras.Model, kernels: Mapping[KernelId, QuantizedKernel], fusions: Mapping[int, Fusion]
) -> list[str]:
    """Give the wrappers their codes, and their layers the corrected biases.

    A weight that was not found in the float file keeps its max-abs scales.

    Returns:
        Notes on what the simulation leaves out.
    """
    notes = []
    for wrapper in wrappers(simulation):
        for slot in wrapper.quantized_weights:
            kernel = kernels.get(KernelId(wrapper.layer.name, slot.name))
            if kernel is None:
                continue
            slot.assign(kernel.weight)
            shift = _shift_of_layer(kernel, fusions)
            if slot.bias is not None:
                slot.bias.assign_add(shift.reshape(slot.bias.shape))
            elif shift.any():
                notes.append(
                    f"the Keras simulation leaves out the bias that the file adds to {slot.name!r} of layer "
                    f"{wrapper.layer.name!r} for a correct mean: the layer has none for each of its outputs. Make it "
                    "with such a bias, or switch bias_correction off"
                )
    return notes


def _shift_of_layer(kernel: QuantizedKernel, fusions: Mapping[int, Fusion]) -> np.ndarray:
    """float32 ``[O]``: what the corrected bias adds to that of the layer, for weights without constants before it."""
    use = kernel.uses[0]
    fusion = fusions.get(use.operator)
    if fusion is None or fusion.same_input:
        return kernel.bias_shift
    shift = kernel.bias_shift if use.row_factors is None else kernel.bias_shift * use.row_factors
    # The file holds the product of a summand with the float weights, the layer multiplies it with the rounded ones.
    return shift + fusion.offset * (kernel.values - kernel.weight.dequantize()).sum(axis=(1, 2))


def simulated_grids(
    float_file: FloatFile, measurements: Measurements, plan: IntegerPlan, config: QuantizationConfig
) -> Mapping[int, ActivationGrid]:
    """Grids of the simulation: those of the file, or below 8 bits coarser ones for what weighted layers read and write.

    Args:
        float_file: float model.
        measurements: give the ranges.
        plan: gives the grids of the file.
        config: config of the model.
    """
    bits = config.activation_bits
    if bits >= 8:
        return plan.grids
    measured = measurements.ranges(config.calibration, bits)
    ranges = {**measured, **cut_ranges(float_file.model, measured)}
    tensors = {index for use in float_file.uses for index in (use.input, use.output, _written_tensor(float_file, use))}
    return {index: activation_grid(*ranges[index], bits) for index in tensors & set(plan.grids)}


def assign_grids_to_wrappers(
    simulation: keras.Model,
    float_file: FloatFile,
    kernels: Mapping[KernelId, Kernel],
    plan: IntegerPlan,
    grids: Mapping[int, ActivationGrid],
    config: QuantizationConfig,
    fusions: Mapping[int, Fusion],
) -> list[str]:
    """Give the wrappers the grids of the tensors that their layers read and write in the file.

    A layer that is used several times gets a grid that holds what those of all its uses hold, or none where one of them
    is left out. One that computes in float reads its input on a grid only where integers are what is there, and its
    output is on a grid where an integer operator reads it.

    Returns:
        What the simulation leaves out, in words: what a layer reads or writes where the file holds it times a constant
        that the converter fused into the kernel.
    """
    read, written = _tensors_of_integers(float_file, plan, config)
    left_out: dict[str, dict[str, None]] = {}  # layer -> what is left out; both in order, each once
    for wrapper in wrappers(simulation):
        found: dict[int, list[ActivationGrid | None]] = {}
        for quantized in _quantized_tensors(wrapper, float_file, kernels, fusions):
            if quantized.writes:
                rounded = quantized.tensor in read | written
            else:
                rounded = quantized.operator in plan.operators or quantized.tensor in written
            if not rounded or quantized.tensor is None:
                continue
            grid = grids[quantized.tensor] if quantized.holds_value else None
            if grid is not None and not quantized.writes:
                grid = plan.converted.get((quantized.tensor, plan.bits_of(quantized.operator)), grid)
            found.setdefault(id(quantized.slot), []).append(grid)
            if grid is None:
                left_out.setdefault(wrapper.layer.name, {})["writes" if quantized.writes else "reads"] = None
        for slot in (*wrapper.quantized_inputs, *wrapper.quantized_outputs):
            grids_of_uses = [grid for grid in found.get(id(slot), []) if grid is not None]
            if grids_of_uses and len(grids_of_uses) == len(found[id(slot)]):
                slot.assign(_grid_over(grids_of_uses))
    if not left_out:
        return []
    listed = ", ".join(f"{name!r} ({' and '.join(does)})" for name, does in left_out.items())
    return [f"the converter fused constants into layers; keras_model does not round what these read or write: {listed}"]


def ranges_of_wrappers(
    simulation: keras.Model,
    float_file: FloatFile,
    kernels: Mapping[KernelId, Kernel],
    fusions: Mapping[int, Fusion],
) -> dict[int, Range]:
    """What ``assign_grids_to_wrappers`` gave, read back: ranges of the tensors that wrapped layers read and write.

    Args:
        simulation: model with wrappers, with or without grids.
        float_file: float model in the file.
        kernels: the kernels that get codes.
        fusions: position of an operator -> what the converter fused into it.

    Returns:
        Tensor index -> (minimum, maximum) that the finest of its grids can represent.
    """
    grids: dict[int, list[ActivationGrid]] = {}
    for wrapper in wrappers(simulation):
        for quantized in _quantized_tensors(wrapper, float_file, kernels, fusions):
            grid = quantized.slot.grid() if quantized.slot is not None and quantized.holds_value else None
            if grid is not None and quantized.tensor is not None:
                grids.setdefault(quantized.tensor, []).append(grid)
    return {index: min(found, key=lambda grid: grid.scale).real_range for index, found in grids.items()}


@dataclass(frozen=True, eq=False)
class _QuantizedTensor:
    """A slot of a wrapper, and the tensor of the file that it stands for in one use of the layer.

    Attributes:
        slot: of an input or an output; None where the wrapper does not quantize it.
        tensor: index in the float file; None where the file holds no such value.
        operator: position of the operator with the kernel.
        writes: whether the layer writes the tensor; if not, it reads it.
        holds_value: whether the tensor holds just what the layer reads or writes.
    """

    slot: QuantizedActivation | None
    tensor: int | None
    operator: int
    writes: bool
    holds_value: bool


def _quantized_tensors(
    wrapper: QuantizeWrapper,
    float_file: FloatFile,
    kernels: Mapping[KernelId, Kernel],
    fusions: Mapping[int, Fusion],
) -> Iterator[_QuantizedTensor]:
    """What a wrapped layer reads and writes in the file, use by use."""
    inputs = {slot.name: slot for slot in wrapper.quantized_inputs}
    for slot in wrapper.quantized_weights:
        for use in _uses(kernels, wrapper, slot):
            operator, fusion = use.operator, fusions.get(use.operator, Fusion(True, True))
            source = inputs.get(_input_slot(wrapper, slot.name))
            yield _QuantizedTensor(source, use.input, operator, False, fusion.same_input)
            if len(wrapper.quantized_weights) == 1 and wrapper.quantized_outputs:
                result = _output_tensor(float_file, wrapper, use)
                yield _QuantizedTensor(wrapper.quantized_outputs[0], result, operator, True, fusion.same_output)


def _tensors_of_integers(
    float_file: FloatFile, plan: IntegerPlan, config: QuantizationConfig
) -> tuple[set[int], set[int]]:
    """Tensors that integer operators, or integer outputs of the model, read; and those that are written as integers."""
    model, integer = float_file.model, [float_file.model.operators[at] for at in plan.operators]
    read = {index for operator in integer for index in operator.inputs}
    written = {index for operator in integer for index in operator.outputs}
    input_type, output_type = config.interface_types
    if output_type != "float32":
        read.update(model.subgraph.outputs)
    if input_type != "float32":
        written.update(model.subgraph.inputs)
    return read & set(plan.grids), written & set(plan.grids)


def _grid_over(grids: list[ActivationGrid]) -> ActivationGrid:
    """One of the grids if it holds all that the others hold, else a grid of the least range that does."""
    widest = max(grids, key=lambda grid: grid.scale)
    lows, highs = zip(*(grid.real_range for grid in grids), strict=True)
    low, high = widest.real_range
    if min(lows) > low - widest.scale / 2 and max(highs) < high + widest.scale / 2:
        return widest
    return activation_grid(min(lows), max(highs), widest.bits)


def _input_slot(wrapper: QuantizeWrapper, weight_name: str) -> str:
    """Name of the input that a weight meets: ``query`` for ``query/kernel`` of an attention layer."""
    prefix = weight_name.split("/")[0]
    names = [slot.name for slot in wrapper.quantized_inputs]
    return prefix if prefix in names else (names[0] if len(names) == 1 else "")


def _output_tensor(float_file: FloatFile, wrapper: QuantizeWrapper, use: KernelUse) -> int | None:
    """Tensor of the file that holds what the layer returns, or None when there is none of its own."""
    function = getattr(wrapper.layer, "activation", None)
    if function in (None, keras.activations.linear):
        return use.output
    options = float_file.model.operators[use.operator].builtinOptions
    if getattr(options, "fusedActivationFunction", 0) != schema.ActivationFunctionType.NONE:
        return use.output
    written = _written_tensor(float_file, use)
    return None if written == use.output else written


def _written_tensor(float_file: FloatFile, use: KernelUse) -> int:
    """Result of a kernel, after an activation function of its own (such as LOGISTIC) where it has one."""
    readers = [float_file.model.operators[at] for at in float_file.model.consumers().get(use.output, [])]
    alone = len(readers) == 1 and bool(float_file.model.spec(readers[0]).fixed_grids)
    return readers[0].outputs[0] if alone else use.output
