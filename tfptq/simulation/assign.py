"""Put what was fitted into the Keras simulation: codes, biases and activation grids of the wrappers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.fit.measurements import Measurements
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelId
from tfptq.layers import QuantizedActivation, QuantizeWrapper, wrappers
from tfptq.lowering.clipped_ranges import cut_ranges
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.simulation.fusions import Fusion
from tfptq.simulation.layer_tensors import input_slot, output_tensor, uses_of, written_tensor


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
    tensors = {index for use in float_file.uses for index in (use.input, use.output, written_tensor(float_file, use))}
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
        for use in uses_of(kernels, wrapper, slot):
            operator, fusion = use.operator, fusions.get(use.operator, Fusion(True, True))
            source = inputs.get(input_slot(wrapper, slot.name))
            yield _QuantizedTensor(source, use.input, operator, False, fusion.same_input)
            if len(wrapper.quantized_weights) == 1 and wrapper.quantized_outputs:
                result = output_tensor(float_file, wrapper, use)
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
