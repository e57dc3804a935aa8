"""Put what was fitted into the Keras simulation: codes, biases and activation grids of the wrappers."""

from collections.abc import Mapping

import keras
from ai_edge_litert import schema_py_generated as schema

from tfptq.config import QuantizationConfig
from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.fit import FittedWeight
from tfptq.layers import QuantizeWrapper, wrappers
from tfptq.tflite.calibrate import Measurements
from tfptq.tflite.emit import IntegerPlan
from tfptq.tflite.matching import WeightBinding, WeightKey
from tfptq.tflite.op_rules import FIXED_OUTPUT_GRIDS
from tfptq.tflite.skeleton import Skeleton


def assign_weights_to_wrappers(simulation: keras.Model, fitted: Mapping[WeightKey, FittedWeight]) -> None:
    """Give the wrappers their codes, and their layers the corrected biases.

    A weight that was not found in the skeleton keeps its max-abs scales.
    """
    for wrapper in wrappers(simulation):
        for slot in wrapper.weight_slots:
            item = fitted.get((wrapper.layer.name, slot.name))
            if item is None:
                continue
            slot.assign(item.weight)
            if slot.bias is not None:
                slot.bias.assign_add(item.bias_shift.reshape(slot.bias.shape))


def simulated_grids(
    skeleton: Skeleton, measurements: Measurements, plan: IntegerPlan, config: QuantizationConfig
) -> Mapping[int, ActivationGrid]:
    """Grids of the simulation: those of the file, or below 8 bits coarser ones for what weighted layers read and write.

    Args:
        skeleton: float model.
        measurements: give the ranges.
        plan: gives the grids of the file.
        config: config of the model.
    """
    bits = config.activation_bits
    if bits >= 8:
        return plan.grids
    ranges = measurements.ranges(config.calibration, bits)
    tensors = {
        index
        for binding in skeleton.bindings
        for index in (binding.input, binding.output, _written_tensor(skeleton, binding))
    }
    return {index: activation_grid(*ranges[index], bits) for index in tensors & set(plan.grids)}


def assign_grids_to_wrappers(
    simulation: keras.Model,
    skeleton: Skeleton,
    fitted: Mapping[WeightKey, FittedWeight],
    plan: IntegerPlan,
    grids: Mapping[int, ActivationGrid],
    config: QuantizationConfig,
) -> None:
    """Give the wrappers the grids of the tensors that their layers read and write in the file.

    A layer that is used several times gets the widest of its grids. One that computes in float reads its input on a
    grid only where integers are what is there, and its output is on a grid where an integer operator reads it.
    """
    read, written = _tensors_of_integers(skeleton, plan, config)
    for wrapper in wrappers(simulation):
        inputs: dict[str, list[ActivationGrid]] = {}
        outputs: list[ActivationGrid] = []
        for slot in wrapper.weight_slots:
            for binding in getattr(fitted.get((wrapper.layer.name, slot.name)), "bindings", ()):
                if binding.operator in plan.operators or binding.input in written:
                    inputs.setdefault(_input_slot(wrapper, slot.name), []).append(grids[binding.input])
                result = _output_tensor(skeleton, wrapper, binding)
                if result in read | written and len(wrapper.weight_slots) == 1:
                    outputs.append(grids[result])
        for slot in wrapper.input_slots:
            _assign_widest(slot, inputs.get(slot.name, []))
        if wrapper.output_slots:
            _assign_widest(wrapper.output_slots[0], outputs)


def _tensors_of_integers(
    skeleton: Skeleton, plan: IntegerPlan, config: QuantizationConfig
) -> tuple[set[int], set[int]]:
    """Tensors that integer operators, or integer outputs of the model, read; and those that are written as integers."""
    model, integer = skeleton.model, [skeleton.model.operators[at] for at in plan.operators]
    read = {index for operator in integer for index in operator.inputs}
    written = {index for operator in integer for index in operator.outputs}
    if config.output_type != "float32":
        read.update(model.subgraph.outputs)
    if config.input_type != "float32":
        written.update(model.subgraph.inputs)
    return read & set(plan.grids), written & set(plan.grids)


def _assign_widest(slot, grids: list[ActivationGrid]) -> None:
    if grids:
        slot.assign(max(grids, key=lambda grid: grid.scale))


def _input_slot(wrapper: QuantizeWrapper, weight_name: str) -> str:
    """Name of the input that a weight meets: ``query`` for ``query/kernel`` of an attention layer."""
    prefix = weight_name.split("/")[0]
    names = [slot.name for slot in wrapper.input_slots]
    return prefix if prefix in names else (names[0] if len(names) == 1 else "")


def _output_tensor(skeleton: Skeleton, wrapper: QuantizeWrapper, binding: WeightBinding) -> int | None:
    """Tensor of the file that holds what the layer returns, or None when there is none of its own."""
    function = getattr(wrapper.layer, "activation", None)
    if function in (None, keras.activations.linear):
        return binding.output
    options = skeleton.model.operators[binding.operator].builtinOptions
    if getattr(options, "fusedActivationFunction", 0) != schema.ActivationFunctionType.NONE:
        return binding.output
    written = _written_tensor(skeleton, binding)
    return None if written == binding.output else written


def _written_tensor(skeleton: Skeleton, binding: WeightBinding) -> int:
    """Result of a kernel, after an activation function of its own (such as LOGISTIC) where it has one."""
    readers = [skeleton.model.operators[at] for at in skeleton.model.consumers().get(binding.output, [])]
    alone = len(readers) == 1 and skeleton.model.operator_name(readers[0]) in FIXED_OUTPUT_GRIDS
    return readers[0].outputs[0] if alone else binding.output
