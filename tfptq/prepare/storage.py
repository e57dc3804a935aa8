"""What the kernels of a Keras network take in the file: for each width the layout of the target, bytes and latency.

Bits are chosen before the network is converted, so the operator of a layer is predicted from its class. Where the
converter makes another one, the kernel gets the layout that this one can have.
"""

from collections.abc import Iterable

import keras

from tfptq.config import QuantizationConfig
from tfptq.core.budget import Option, choose_options
from tfptq.core.windows import Window
from tfptq.layers import supports, weight_specs
from tfptq.layers.registry import WeightSpec
from tfptq.tflite.costs import Costs, load_costs
from tfptq.tflite.layouts import INT8, POLICIES, Layout, LayoutRequest, layout_named

_OPERATORS: dict[type, str] = {
    keras.layers.DepthwiseConv1D: "DEPTHWISE_CONV_2D",
    keras.layers.DepthwiseConv2D: "DEPTHWISE_CONV_2D",
    keras.layers.Conv1DTranspose: "TRANSPOSE_CONV",
    keras.layers.Conv2DTranspose: "TRANSPOSE_CONV",
    keras.layers.Conv1D: "CONV_2D",
    keras.layers.Conv2D: "CONV_2D",
}


def with_bits_of_target(config: QuantizationConfig, model: keras.Model) -> QuantizationConfig:
    """Give 8 bits to the layers that the target would store in INT8 anyway, or that the budget of latency excludes.

    Args:
        config: config with pinned edges.
        model: canonical Keras model.
    """
    if config.target.narrow_int8:
        return config
    layers = [layer for layer in model.layers if supports(layer)]
    narrow = [layer for layer in layers if _follows_target(config.for_layer(layer.name))]
    if not narrow or config.mixed_precision is not None:
        return config.with_pinned([layer.name for layer in narrow if not _narrowest(layer, config)], 8)
    budget = latency_budget(config, layers)
    fixed = sum(latency(layer, config) for layer in layers if layer not in narrow)
    options = [layer_options(layer, config, {config.for_layer(layer.name).weight_bits, 8}) for layer in narrow]
    # The error that is to be least is the number of bytes.
    as_errors = [[Option(it.bits, it.bytes, it.latency, it.bytes) for it in each] for each in options]
    chosen = choose_options(as_errors, most_latency=max(budget - fixed, 0.0) + 1e-9)
    return config.with_pinned([layer.name for layer, it in zip(narrow, chosen, strict=True) if it.bits == 8], 8)


def latency_budget(config: QuantizationConfig, layers: Iterable[keras.Layer]) -> float:
    """What all kernels together may take, in the unit of ``layer_options``."""
    factor = 1.0 if config.layout == "speed" else config.latency_budget
    return factor * sum(latency(layer, config) for layer in layers)


def latency(layer: keras.Layer, config: QuantizationConfig) -> float:
    """What the kernels of a layer take in INT8."""
    (option,) = layer_options(layer, config, {8})
    return option.latency


def layer_options(layer: keras.Layer, config: QuantizationConfig, widths: Iterable[int]) -> list[Option]:
    """How a layer can be stored, for each of some widths; widths that the target stores in INT8 are left out.

    Latency is in microseconds where the target has measured costs, else 1 for everything.
    """
    costs = None if config.target.costs is None else load_costs(config.target.costs)
    own, found = config.for_layer(layer.name), []
    for bits in sorted(widths):
        stored = [_stored(layer, spec, own, bits, costs) for spec in weight_specs(layer)]
        parts = [it for it in stored if it is not None]
        if len(parts) == len(stored):
            found.append(Option(bits, sum(size for size, _ in parts), sum(time for _, time in parts), error=0.0))
    return found


def _stored(
    layer: keras.Layer,
    spec: WeightSpec,
    own: QuantizationConfig,
    bits: int,
    costs: Costs | None,
) -> tuple[float, float] | None:
    """Bytes and latency of one weight, or None where no layout of the target is for so few bits."""
    request = layer_request(layer, spec, own, bits)
    layout = INT8 if bits == 8 else _layout(request, own)
    if layout is None:
        return None
    codes = -(-spec.values().size * layout.code_bits(bits) // 8)
    time = 1.0 if costs is None else costs.microseconds(request) * costs.ratio(layout, request)
    return codes + 4.0 * request.view_shape[0], time


def _layout(request: LayoutRequest, own: QuantizationConfig) -> Layout | None:
    """The smallest layout of the target for a kernel of less than 8 bits."""
    layouts = map(layout_named, own.target.layouts_for(request.operator))
    possible = [layout for layout in layouts if layout.obstacle(request) is None]
    return min(possible, key=lambda layout: layout.code_bits(request.weight_bits), default=None)


def _narrowest(layer: keras.Layer, config: QuantizationConfig) -> bool:
    """Whether some width below 8 bits has a layout on the target."""
    mixed = config.mixed_precision
    widths = {config.for_layer(layer.name).weight_bits} if mixed is None else mixed.bits
    return any(option.bits < 8 for option in layer_options(layer, config, set(widths) - {8}))


def _follows_target(own: QuantizationConfig) -> bool:
    return own.weight_bits < 8 and own.layout in POLICIES and not own.skip


def layer_request(layer: keras.Layer, spec: WeightSpec, own: QuantizationConfig, bits: int) -> LayoutRequest:
    """What a layout has to know of a weight of a layer, as far as Keras tells."""
    operator = next((_OPERATORS[base] for base in type(layer).__mro__ if base in _OPERATORS), "FULLY_CONNECTED")
    shape = spec.view.view_shape
    sizes = tuple(-1 if size is None else int(size) for size in getattr(layer.input, "shape", ()))
    if operator != "FULLY_CONNECTED" and len(sizes) == 3:  # a convolution along one axis is one of height 1
        sizes = (sizes[0], 1, *sizes[1:])
    return LayoutRequest(
        operator,
        shape,
        own.granularity.block_shape(*shape[:2]),
        own.scaler,
        bits,
        own.device_activation_bits,
        is_shift_scaler=own.is_shift_scaler,
        window=Window() if operator == "FULLY_CONNECTED" else _window(layer, operator, sizes),
        input_sizes=sizes,
    )


def _window(layer: keras.Layer, operator: str, sizes: tuple[int, ...]) -> Window:
    def pair(name: str) -> tuple[int, int]:
        value = getattr(layer, name, 1)
        values = (value,) if isinstance(value, int) else tuple(value)
        return (1, *values) if len(values) == 1 else (values[0], values[1])

    return Window(
        kernel=pair("kernel_size"),
        strides=pair("strides"),
        dilations=pair("dilation_rate"),
        padding="valid" if layer.padding == "valid" else "same",
        groups=sizes[-1] if operator == "DEPTHWISE_CONV_2D" else getattr(layer, "groups", 1),
        transposed=operator == "TRANSPOSE_CONV",
    )
