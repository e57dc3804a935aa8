"""Find the Keras weights in a float ``.tflite``, by content.

The converter renames, fuses and transposes, but it keeps the numbers. A constant belongs to a Keras weight when
its canonical view ``W[O, I, T]`` is the Keras weight's, exactly; or, when the layout is unusual, when both hold
the same sorted values and some order of axes makes the views equal; or when they differ by one factor for each
output channel (a constant multiplication that the converter fused into the kernel).

Weights with equal values cannot be told apart here; ``tfptq.float_file.equal_weights`` perturbs them beforehand.
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tfptq.core.blocks import WeightView
from tfptq.core.windows import Window
from tfptq.float_file.kernel import Kernel, KernelId, KernelUse
from tfptq.float_file.kernel_names import names_of_kernels
from tfptq.ops.operator_spec import WeightedInputs
from tfptq.tflite.model import TFLiteModel

#: Largest relative difference between a weight and a per-channel multiple of another.
FACTOR_TOLERANCE = 1e-5


def find_kernels(
    model: TFLiteModel,
    finder: "WeightFinder",
    weights: Mapping[KernelId, np.ndarray],
    layers: Collection[str] = (),
) -> tuple[Kernel, ...]:
    """Find every constant float kernel in a model, and the Keras weight that it came from.

    Kernels come in the order of their first use. One that is no Keras weight goes by the path that the converter kept
    (``tfptq.float_file.kernel_names``).

    Args:
        finder: knows the values by which weights are found.
        weights: the values ``[O, I, T]`` that kernels shall have, by weight.
        layers: names of all layers of the Keras model.
    """
    names = [model.name(operator.outputs[0]) for operator in model.operators]
    named = layers_in_names(names, {id.layer for id in weights if id.layer is not None})
    reading = _operators_with_kernels(model)
    of_gates = _ids_of_gates(model, reading, layers)
    first: dict[int, int] = {}
    for at, place in reading:
        tensor = model.operators[at].inputs[place.kernel]
        if tensor not in of_gates:
            first.setdefault(tensor, at)
    paths = names_of_kernels(model, first, layers)
    uses: dict[KernelId, list[KernelUse]] = {}
    values: dict[KernelId, np.ndarray] = {}
    for at, place in reading:
        operator = model.operators[at]
        spec, tensor = model.spec(operator), operator.inputs[place.kernel]
        bias = operator.inputs[place.bias] if len(operator.inputs) > place.bias else -1
        constant = model.constant(tensor)
        view, id, factors = spec.kernel_view(constant.shape), None, None
        if not spec.places:
            view, id, factors = finder.find(constant, view, named[at])
        if id is None:
            id = of_gates[tensor] if tensor in of_gates else KernelId(None, paths[tensor])
            values.setdefault(id, view.to_view(constant))
        else:
            values[id] = np.asarray(weights[id], np.float32)
        use = KernelUse(
            operator=at,
            tensor=tensor,
            input=operator.inputs[place.input],
            output=operator.outputs[0],
            view=view,
            window=operator_window(model, operator),
            bias=model.constant(bias).reshape(-1) if bias >= 0 and spec.owns_bias(place) else None,
            row_factors=factors,
            kernel_at=place.kernel,
            alone=not spec.places,
        )
        uses.setdefault(id, []).append(use)
    return tuple(Kernel(id, values[id], tuple(found)) for id, found in uses.items())


def _operators_with_kernels(model: TFLiteModel) -> list[tuple[int, WeightedInputs]]:
    """Position of each operator with a constant float kernel, and where that is, in execution order."""
    found = []
    for at, operator in enumerate(model.operators):
        for place in model.spec(operator).kernels:
            tensor = operator.inputs[place.kernel]
            if model.is_constant(tensor) and model.is_float(tensor):
                found.append((at, place))
    return found


def _ids_of_gates(
    model: TFLiteModel, reading: Sequence[tuple[int, WeightedInputs]], layers: Collection[str]
) -> dict[int, KernelId]:
    """Index of a kernel of an LSTM -> what it goes by, where we have named its tensor after its layer."""
    found = {}
    for at, place in reading:
        tensor = model.operators[at].inputs[place.kernel]
        layer, _, rest = model.name(tensor).partition("/")
        if model.spec(model.operators[at]).places and layer in layers:
            found[tensor] = KernelId(layer, rest)
    return found


def operator_window(model: TFLiteModel, operator) -> Window:
    """Geometry of an operator with a kernel."""
    spec = model.spec(operator)
    if spec.kernel is None or not spec.kernel.taps:
        return Window()
    options, channels = operator.builtinOptions, model.shape(operator.inputs[spec.weights.input])[3]
    _, height, width, inputs = model.shape(operator.inputs[spec.weights.kernel])
    return Window(
        kernel=(height, width),
        strides=(options.strideH, options.strideW),
        dilations=(getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1)),
        padding=("same", "valid")[options.padding],
        groups=channels if spec.name == "DEPTHWISE_CONV_2D" else channels // inputs,
        transposed=spec.name == "TRANSPOSE_CONV",
    )


def layers_in_names(names: Sequence[str], layers: Collection[str]) -> list[frozenset[str]]:
    """The layers that the converter named tensors after: ``"net_1/conv_1/Relu"`` after ``"conv"`` or ``"conv_1"``.

    It may add a number to the name of each layer; where there are layers of both names, those of the other tensors tell
    whether it did. Outputs of the model have other names, which name none.

    Args:
        names: scopes and an operation, joined by ``/``; where operators were fused, several of them joined by ``;``.
        layers: names of Keras layers.
    """
    known = set(layers)

    def options(scope: str) -> list[str]:
        return [name for name in dict.fromkeys((re.sub(r"_\d+$", "", scope), scope)) if name in known]

    scopes = [{scope for part in name.split(";") for scope in part.split("/")[:-1]} for name in names]
    clear = [(scope, options(scope)[0]) for scope in set().union(*scopes) if len(options(scope)) == 1]
    numbered = 2 * sum(scope != layer for scope, layer in clear) >= len(clear)
    return [frozenset(options(scope)[0 if numbered else -1] for scope in found if options(scope)) for found in scopes]


def replace_kernel(model: TFLiteModel, operator, use: KernelUse, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Give an operator another float kernel, in the layout of the file, and another bias ``[O]``, even if it had none.

    A bias that belongs to another kernel of the operator is added to. Tensors that other operators read stay as they
    are.
    """
    spec, name = model.spec(operator), model.name(operator.outputs[0])
    place = spec.place_of(use.kernel_at)
    operator.inputs += [-1] * (place.bias + 1 - len(operator.inputs))
    if not spec.owns_bias(place):
        bias = bias + model.constant(operator.inputs[place.bias]).reshape(-1)
    operator.inputs[place.kernel] = model.add_constant(f"{name}/kernel", kernel.astype(np.float32))
    operator.inputs[place.bias] = model.add_constant(f"{name}/bias", bias.astype(np.float32))


class WeightFinder:
    """Looks Keras weights ``[O, I, T]`` up by their values."""

    def __init__(self, weights: Mapping[KernelId, np.ndarray]):
        self._weights = {key: np.ascontiguousarray(view, np.float32) for key, view in weights.items()}
        self._by_view: dict[tuple, KernelId] = {}
        self._by_values: dict[bytes, list[KernelId]] = {}
        for key, view in self._weights.items():
            self._by_view.setdefault((view.shape, view.tobytes()), key)
            self._by_values.setdefault(np.sort(view, axis=None).tobytes(), []).append(key)

    def find(
        self, kernel: np.ndarray, view: WeightView, named: Collection[str | None] = ()
    ) -> tuple[WeightView, KernelId | None, np.ndarray | None]:
        """Look a constant up.

        Args:
            view: its canonical view, as the operator reads it.
            named: layers that the operator's result is named after; they come first where several weights fit.

        Returns:
            The view under which it is the weight, the weight or None, and its row factors or None.
        """
        canonical = view.to_view(kernel)
        key = self._by_view.get((canonical.shape, canonical.tobytes()))
        if key is not None:
            return view, key, None
        for candidate in self._by_values.get(np.sort(kernel, axis=None).tobytes(), []):
            other = self._other_layout(kernel, self._weights[candidate], view)
            if other is not None:
                return other, candidate, None
        # Kernels with one weight in each row are multiples of each other: the name decides, where it tells.
        for candidate in sorted(self._weights, key=lambda id: id.layer not in named):
            factors = _row_factors(canonical, self._weights[candidate])
            if factors is not None:
                return view, candidate, factors
        return view, None, None

    @staticmethod
    def _other_layout(kernel: np.ndarray, weight: np.ndarray, view: WeightView) -> WeightView | None:
        """Try every order of the input and tap axes; output axes are fixed by the operator."""
        others = view.input_axes + view.tap_axes
        for order in itertools.permutations(others):
            for split in range(len(order) + 1):
                other = WeightView(view.shape, view.output_axes, order[:split], order[split:])
                if other.view_shape == weight.shape and np.array_equal(other.to_view(kernel), weight):
                    return other
        return None


def _row_factors(canonical: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """Factors f[O] with ``canonical == f * weight`` up to rounding, or None."""
    if canonical.shape != weight.shape:
        return None
    a, b = canonical.reshape(len(canonical), -1), weight.reshape(len(weight), -1)
    column = np.abs(b).argmax(axis=1)[:, None]
    largest = np.take_along_axis(b, column, 1)
    if not largest.all():
        return None
    factors = np.take_along_axis(a, column, 1) / largest
    close = np.abs(a - factors * b) <= FACTOR_TOLERANCE * np.abs(factors * largest)
    return factors[:, 0].astype(np.float32) if close.all() and factors.all() else None
