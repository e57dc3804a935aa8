"""From a Keras layer to the weights that can be quantized, each with its canonical view ``[O, I, T]``.

For every class the registry holds one function from a built layer to its ``WeightSpec``s. A subclass inherits the
function of its nearest registered base. ``register`` adds classes of the user's own.

``Embedding`` is left out: its table is looked up, not multiplied with, so that nothing is to be learned of it
(``tfptq.lowering.tables``). ``Conv3D`` is left out: LiteRT has no integer kernel for it.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.core.blocks import WeightView


@dataclass(frozen=True, eq=False)
class WeightSpec:
    """One weight of a built layer.

    Attributes:
        name: unique in the layer: ``"kernel"``; ``"query/kernel"`` for a weight of an inner layer.
        bias: variable with one number for each output of this kernel that is added to it, or None.
        view: from the variable to ``[O, I, T]``.
    """

    name: str
    variable: keras.Variable
    bias: keras.Variable | None
    view: WeightView

    def values(self) -> np.ndarray:
        """The weight as it is now, float32 ``[O, I, T]``."""
        return self.view.to_view(keras.ops.convert_to_numpy(self.variable))


SpecsFunction = Callable[[keras.Layer], Sequence[WeightSpec]]


def register(layer_class: type, specs_function: SpecsFunction) -> None:
    """Teach the registry a layer class, or replace what it knows; the function takes a built layer.

    >>> register(MyDense, lambda layer: [
    ...     WeightSpec("kernel", layer.kernel, layer.bias, WeightView(tuple(layer.kernel.shape), (1,), (0,)))])
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(f"register() takes a subclass of keras.Layer first, not {layer_class!r}")
    if not callable(specs_function):
        raise TypeError(f"register() takes a function from a built layer to its WeightSpecs, not {specs_function!r}")
    _FUNCTIONS[layer_class] = specs_function


def _find(layer: keras.Layer) -> SpecsFunction | None:
    return next((_FUNCTIONS[base] for base in type(layer).__mro__ if base in _FUNCTIONS), None)


def supports(layer: keras.Layer) -> bool:
    """Whether the class of a layer, or a base of it, is registered."""
    return _find(layer) is not None


def looks_up(layer: keras.Layer) -> bool:
    """Whether a layer picks rows of a table, which files may hold as codes (``tfptq.lowering.tables``)."""
    return isinstance(layer, keras.layers.Embedding)


def is_recurrent(layer: keras.Layer) -> bool:
    """Whether a layer is recurrent, or makes another one read both ways."""
    return isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)


def is_weighted(layer: keras.Layer) -> bool:
    """Whether a built layer has a floating point weight with two axes or more, registered or not."""
    return any(len(weight.shape) >= 2 and keras.backend.is_float_dtype(weight.dtype) for weight in layer.weights)


def weight_specs(layer: keras.Layer) -> tuple[WeightSpec, ...]:
    """The weights that can be quantized; a ValueError if the class is not registered or the layer not built."""
    function = _find(layer)
    kind = type(layer).__name__
    if function is None:
        raise ValueError(
            f"layer {layer.name!r} is a {kind}, which tfptq does not know how to quantize; teach it with "
            f"tfptq.layers.register({kind}, specs_function), or leave the layer in float"
        )
    if not layer.built:
        raise ValueError(f"layer {layer.name!r} ({kind}) has no weights yet; build it, or call it once")
    return tuple(function(layer))


def kernel_view(shape: tuple[int, ...], outputs: tuple[int, ...], inputs: tuple[int, ...]) -> WeightView:
    """View of a kernel by its output and input axes, negative ones counted from the end; the others are taps."""
    outputs, inputs = (tuple(axis % len(shape) for axis in axes) for axes in (outputs, inputs))
    taps = tuple(axis for axis in range(len(shape)) if axis not in outputs + inputs)
    return WeightView(shape, outputs, inputs, taps)


def _spec(
    layer: keras.Layer, outputs: tuple[int, ...], inputs: tuple[int, ...], name: str = "kernel", prefix: str = ""
) -> WeightSpec:
    kernel = getattr(layer, name)
    return WeightSpec(prefix + name, kernel, layer.bias, kernel_view(tuple(kernel.shape), outputs, inputs))


def _convolution(layer: keras.Layer) -> list[WeightSpec]:
    return [_spec(layer, (-1,), (-2,))]  # [taps..., I/groups, O]


def _transposed_convolution(layer: keras.Layer) -> list[WeightSpec]:
    return [_spec(layer, (-2,), (-1,))]  # [taps..., O, I]


def _depthwise_convolution(layer: keras.Layer) -> list[WeightSpec]:
    return [_spec(layer, (-2, -1), ())]  # [taps..., C, multiplier]: O = C * multiplier, I = 1


def _separable_convolution(layer: keras.Layer) -> list[WeightSpec]:
    depthwise = _spec(layer, (-2, -1), (), "depthwise_kernel")
    return [dataclasses.replace(depthwise, bias=None), _spec(layer, (-1,), (-2,), "pointwise_kernel")]


def _einsum_labels(equation: str) -> tuple[str, str, str]:
    """Labels of the input, the kernel and the output."""
    operands, output = equation.replace("...", "").replace(" ", "").split("->")
    source, kernel = operands.split(",")
    return source, kernel, output


def einsum_axes(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Output and input axes of the kernel in an equation such as ``"abc,cde->abde"``.

    Labels of the kernel that are in the output number output channels, in the order of the output (also where the
    input has them too: each of their values has weights of its own). The others are summed over: input channels, in
    the order of the input.
    """
    source, kernel, output = _einsum_labels(equation)
    rows = sorted((label for label in kernel if label in output), key=output.index)
    columns = sorted((label for label in kernel if label not in output), key=source.index)
    return tuple(map(kernel.index, rows)), tuple(map(kernel.index, columns))


def _einsum_dense(layer: keras.Layer) -> list[WeightSpec]:
    return [_einsum_spec(layer)]


def _einsum_spec(layer: keras.layers.EinsumDense, prefix: str = "") -> WeightSpec:
    """Its bias is left out where one number is for several outputs, or one position."""
    rows, columns = einsum_axes(layer.equation)
    spec = _spec(layer, rows, columns, prefix=prefix)
    _, kernel, _ = _einsum_labels(layer.equation)
    if layer.bias is None or (
        set(layer.bias_axes) <= {kernel[axis] for axis in rows}
        and math.prod(layer.bias.shape) == spec.view.view_shape[0]
    ):
        return spec
    return dataclasses.replace(spec, bias=None)


def _attention(layer: keras.Layer) -> list[WeightSpec]:
    """The projections of an attention layer; each is an ``EinsumDense`` inside it."""
    projections = [getattr(layer, f"_{name}_dense", None) for name in ("query", "key", "value", "gate", "output")]
    return [
        _einsum_spec(projection, prefix=f"{projection.name}/") for projection in projections if projection is not None
    ]


_FUNCTIONS: dict[type, SpecsFunction] = {
    keras.layers.Dense: _convolution,  # [I, O]: a convolution without taps
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv1DTranspose: _transposed_convolution,
    keras.layers.Conv2DTranspose: _transposed_convolution,
    keras.layers.DepthwiseConv1D: _depthwise_convolution,
    keras.layers.DepthwiseConv2D: _depthwise_convolution,
    keras.layers.SeparableConv1D: _separable_convolution,
    keras.layers.SeparableConv2D: _separable_convolution,
    keras.layers.EinsumDense: _einsum_dense,
    keras.layers.MultiHeadAttention: _attention,
    keras.layers.GroupQueryAttention: _attention,
}
