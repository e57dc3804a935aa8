"""Operators that compute in float because a config wants their activations in float, or their kernels' layouts do."""

from collections.abc import Mapping

from tfptq.config import QuantizationConfig
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelId
from tfptq.lowering.float_neighbours import activations_of
from tfptq.lowering.quantized_kernel import KernelPlan
from tfptq.tflite.layouts import Computes


def operators_in_float(
    float_file: FloatFile, plans: Mapping[KernelId, KernelPlan], config: QuantizationConfig
) -> dict[int, str]:
    """Position of an operator -> reason to leave it in float.

    With ``activations="static"`` these are the operators whose kernels do not compute on integers. Else they are all
    but those whose kernels do, by an override, and light ones between such.

    Args:
        plans: of the kernels that are quantized.
        config: config of the model.
    """
    planned = [kernel for kernel in float_file.kernels if kernel.id in plans]
    found = {
        use.operator: _reason(plans[kernel.id])
        for kernel in planned
        if plans[kernel.id].layouts.computes is not Computes.INTEGER
        for use in kernel.uses
    }
    if config.on_integers:
        return found
    integer = {use.operator for kernel in planned for use in kernel.uses} - set(found)
    integer |= _between(float_file, integer)
    reason = reason_of_config(config)
    others = [at for at in range(len(float_file.model.operators)) if at not in integer]
    return {at: found.get(at, reason) for at in others}


def reason_of_config(config: QuantizationConfig) -> str:
    """Why an operator without a kernel computes in float in a file of float activations."""
    return f"activations={config.activations!r}"


def _reason(plan: KernelPlan) -> str:
    if not plan.config.on_integers:
        return reason_of_config(plan.config)
    return f"layout {plan.layouts.candidates[0]} computes in float"


def _between(float_file: FloatFile, integer: set[int]) -> set[int]:
    """Light operators that read nothing but integers, and that nothing but operators on integers read."""
    model = float_file.model
    producers, readers, outputs = model.producers(), model.consumers(), set(model.subgraph.outputs)
    found: set[int] = set()
    for at, operator in enumerate(model.operators):
        spec, read = model.spec(operator), activations_of(model, operator)
        from_integers = bool(read) and all(producers.get(index) in integer | found for index in read)
        if spec.light and spec.output_grid is not None and from_integers:
            found.add(at)
    for at in sorted(found, reverse=True):
        results = model.operators[at].outputs
        read_by = {to for index in results for to in readers.get(index, [])}
        if outputs.intersection(results) or not read_by or not read_by <= integer | found:
            found.discard(at)
    return found
