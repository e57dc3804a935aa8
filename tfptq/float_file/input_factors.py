"""Take out of kernels the multiples of input channels that the converter has folded into them.

Of ``W y + b`` with ``y[..., i] = factors[i] * x[..., i]``, such as the trained scale of ``RMSNormalization``, the
converter makes one FULLY_CONNECTED of ``x``, with the kernel ``W[o, i] factors[i]``. That is the weight of no Keras
layer, and no layer's config reaches it. It is also worse to quantize: with one scale for a row, channels with small
factors have few codes. So the kernel becomes ``W`` again, behind a MUL.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.float_file.kernel import KernelId
from tfptq.float_file.matching import FACTOR_TOLERANCE, WeightFinder
from tfptq.tflite.model import TFLiteModel


def separate_input_factors(model: TFLiteModel, finder: WeightFinder, weights: Mapping[KernelId, np.ndarray]) -> None:
    """Put a MUL before every FULLY_CONNECTED whose kernel is one of the weights times a factor for each input channel.

    The model is edited in place. Kernels that ``finder`` knows as they are stay.
    """
    kernels: dict[KernelId, int] = {}  # a layer that is used several times keeps one kernel
    operators: list[schema.OperatorT] = []
    for operator in model.operators:
        found = _find(model, operator, finder, weights)
        if found is not None:
            key, factors = found
            source = operator.inputs[0]
            product = _product(model, operators, source, factors)
            if product is None:
                name = model.name(source)
                product = model.add_activation_like(source, f"{name}_multiplied", schema.TensorType.FLOAT32)
                constant = model.add_constant(f"{name}_factors", factors)
                operators.append(model.new_operator("MUL", [source, constant], [product], options=schema.MulOptionsT()))
            if key not in kernels:
                kernels[key] = model.add_constant(f"{model.name(operator.inputs[1])}_unfolded", weights[key][:, :, 0])
            operator.inputs = [product, kernels[key], *operator.inputs[2:]]
        operators.append(operator)
    model.operators[:] = operators
    model.remove_unused()


def _find(
    model: TFLiteModel, operator, finder: WeightFinder, weights: Mapping[KernelId, np.ndarray]
) -> tuple[KernelId, np.ndarray] | None:
    """The weight that a kernel is a multiple of, and the factors ``[I]``."""
    if model.operator_name(operator) != "FULLY_CONNECTED":
        return None
    source, constant = operator.inputs[:2]
    if not (model.is_constant(constant) and model.is_float(constant)):
        return None
    kernel = model.constant(constant)
    if (
        model.shape(source)[-1] != kernel.shape[1]
        or finder.find(kernel, model.spec(operator).kernel_view(kernel.shape))[1] is not None
    ):
        return None
    for key, weight in weights.items():
        factors = _input_factors(kernel, weight)
        if factors is not None:
            return key, factors
    return None


def _input_factors(kernel: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """float32 factors f[I] with ``kernel == f * weight`` up to rounding, or None; ``[O, I]`` and ``[O, I, T]``.

    A kernel with a single row would be a multiple of any weight, and is taken for none.
    """
    if weight.shape != (*kernel.shape, 1) or len(kernel) < 2 or not kernel.any():
        return None
    weight = weight[:, :, 0]
    row = np.abs(weight).argmax(axis=0)[None]
    largest = np.take_along_axis(weight, row, 0)
    there = largest != 0.0
    factors = np.where(there, np.take_along_axis(kernel, row, 0) / np.where(there, largest, 1.0), 1.0)
    close = np.abs(kernel - factors * weight) <= FACTOR_TOLERANCE * np.abs(factors * largest)
    return factors[0].astype(np.float32) if close.all() else None


def _product(model: TFLiteModel, operators: Sequence, source: int, factors: np.ndarray) -> int | None:
    """The result of a MUL among some operators that multiplies a tensor by these factors, or None."""
    for operator in operators:
        if model.operator_name(operator) != "MUL" or operator.inputs[0] != source:
            continue
        other = operator.inputs[1]
        if not model.is_constant(other) or operator.builtinOptions.fusedActivationFunction:
            continue
        constant = model.constant(other)
        if constant.size == factors.size == constant.shape[-1] and np.allclose(constant, factors, FACTOR_TOLERANCE, 0):
            return operator.outputs[0]
    return None
