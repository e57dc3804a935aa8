"""What kernels take in the file: for each width the layout of the target, bytes and latency.

Bits of a Keras network are chosen before it is converted, so the operator of a layer is predicted from its class. Where
the converter makes another one, the kernel gets the layout that this one can have. Kernels of no layer that tfptq knows
come later, with the operators that they have (``tfptq.prepare.file_weights``).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfptq.config import COMPUTES, QuantizationConfig, pin
from tfptq.core.budget import Option, fewest_bytes
from tfptq.core.windows import Window
from tfptq.layers import supports, weight_specs
from tfptq.layers.registry import WeightSpec
from tfptq.tflite.costs import Costs, load_costs
from tfptq.tflite.layouts import INT8, POLICIES, Computes, Layout, LayoutRequest, layout_named

#: Bytes of an operator that moves values, with its result (measured on gathered 3x3 convolutions of ResNet-20).
_OPERATOR_BYTES = 120
_OPERATORS: dict[type, str] = {
    keras.layers.DepthwiseConv1D: "DEPTHWISE_CONV_2D",
    keras.layers.DepthwiseConv2D: "DEPTHWISE_CONV_2D",
    keras.layers.Conv1DTranspose: "TRANSPOSE_CONV",
    keras.layers.Conv2DTranspose: "TRANSPOSE_CONV",
    keras.layers.Conv1D: "CONV_2D",
    keras.layers.Conv2D: "CONV_2D",
}


@dataclass(frozen=True, eq=False)
class WeightGroup:
    """Weights that one name in the config stands for: those of a layer, or a kernel of the file.

    Attributes:
        name: what overrides match.
        views: the weights, float32 ``[O, I, T]``.
        requests: config of the name and a width -> what a layout has to know of each weight, for each of its calls.
    """

    name: str
    views: tuple[np.ndarray, ...]
    requests: Callable[[QuantizationConfig, int], list[list[LayoutRequest]]]

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(view.size for view in self.views)


def group_of(layer: keras.Layer) -> WeightGroup:
    """The weights of a layer of a canonical model."""
    specs = weight_specs(layer)
    return WeightGroup(
        layer.name,
        tuple(spec.values() for spec in specs),
        lambda own, bits: [layer_requests(layer, spec, own, bits) for spec in specs],
    )


def groups_of(model: keras.Model) -> list[WeightGroup]:
    """The weights of all layers of a canonical model that tfptq knows."""
    return [group_of(layer) for layer in model.layers if supports(layer)]


def with_bits_of_target(config: QuantizationConfig, groups: Sequence[WeightGroup]) -> QuantizationConfig:
    """Give 8 bits to what the target would store in INT8 anyway, or what the budget of latency excludes.

    Args:
        config: config with pinned edges.
        groups: the weights that the budget is for.
    """
    if config.target.narrow_int8:
        return config
    narrow = {group.name: _widths(group, config) for group in groups if _follows_target(group.name, config)}
    options = {group.name: group_options(group, config, narrow[group.name]) for group in groups if group.name in narrow}
    if config.mixed_precision is not None and config.mixed_precision.by_real_bytes:  # it keeps the budget by itself
        wide = [name for name, each in options.items() if min(it.bits for it in each) == 8]
        return pin(config, wide, 8)
    fixed = sum(latency(group, config) for group in groups if group.name not in narrow)
    left = max(latency_budget(config, groups) - fixed, 0.0) + 1e-9
    chosen = fewest_bytes(list(options.values()), most_latency=left)
    return pin(config, [name for name, it in zip(options, chosen, strict=True) if it.bits == 8], 8)


def latency_budget(config: QuantizationConfig, groups: Iterable[WeightGroup]) -> float:
    """What all kernels together may take, in the unit of ``group_options``."""
    factor = 1.0 if config.layout == "speed" else config.latency_budget
    return factor * sum(latency(group, config) for group in groups)


def latency(group: WeightGroup, config: QuantizationConfig) -> float:
    """What kernels take in INT8."""
    (option,) = group_options(group, config, {8})
    return option.latency


def group_options(group: WeightGroup, config: QuantizationConfig, widths: Iterable[int]) -> list[Option]:
    """How weights can be stored, for each of some widths; widths that the target stores in INT8 are left out.

    Latency is in microseconds where the target has measured costs, else 1 for everything.
    """
    costs = None if config.target.costs is None else load_costs(config.target.costs)
    own, found = config.for_layer(group.name), []
    for bits in sorted(widths):
        stored = [_stored(requests, own, bits, costs) for requests in group.requests(own, bits)]
        parts = [it for it in stored if it is not None]
        if len(parts) == len(stored):
            found.append(Option(bits, sum(size for size, _ in parts), sum(time for _, time in parts), error=0.0))
    return found


def _stored(
    requests: Sequence[LayoutRequest], own: QuantizationConfig, bits: int, costs: Costs | None
) -> tuple[float, float] | None:
    """Bytes and latency of one weight, or None where no layout of the target is for so few bits."""
    layout = INT8 if bits == 8 else _layout(requests, own)
    if layout is None:
        return None
    codes = -(-math.prod(requests[0].view_shape) * layout.code_bits(bits) // 8)
    times = (1.0 if costs is None else _time(layout, each, own, costs) for each in requests)
    structure = _OPERATOR_BYTES * sum(map(layout.operators_in_front, requests))
    return codes + 4.0 * requests[0].view_shape[0] + structure, sum(times)


def _time(layout: Layout, request: LayoutRequest, own: QuantizationConfig, costs: Costs) -> float:
    """Latency of one call; whoever names a layout, or wants float activations, has it at the price of INT8."""
    if request.computes is not Computes.INTEGER:
        return costs.microseconds(request)
    return costs.microseconds(request) * (costs.ratio(layout, request) if own.layout in POLICIES else 1.0)


def _layout(requests: Sequence[LayoutRequest], own: QuantizationConfig) -> Layout | None:
    """The layout of a kernel of less than 8 bits: the one that its config names, or the smallest of the target."""
    first = requests[0]
    named = own.target.layouts_for(first.operator, first.computes) if own.layout in POLICIES else (own.layout,)
    possible = [layout for layout in map(layout_named, named) if all(_is_sure(layout, each) for each in requests)]
    return min(possible, key=lambda layout: layout.code_bits(requests[0].weight_bits), default=None)


def _is_sure(layout: Layout, request: LayoutRequest) -> bool:
    """Whether a layout can hold a kernel whatever its codes will be."""
    return layout.obstacle(request) is None and not layout.depends_on_codes(request)


def _widths(group: WeightGroup, config: QuantizationConfig) -> set[int]:
    """What bits are chosen from; 8 is among them."""
    mixed = config.mixed_precision
    return {8, *((config.for_layer(group.name).weight_bits,) if mixed is None else mixed.bits)}


def _follows_target(name: str, config: QuantizationConfig) -> bool:
    """Whether the target has its say on the bits of a layer."""
    own = config.for_layer(name)
    narrow = own.weight_bits < 8 or config.mixed_precision is not None
    return (
        narrow and own.layout in POLICIES and not own.keeps_weights and not config.overrides_field(name, "weight_bits")
    )


def layer_requests(layer: keras.Layer, spec: WeightSpec, own: QuantizationConfig, bits: int) -> list[LayoutRequest]:
    """What a layout has to know of a weight of a layer, as far as Keras tells, for each call of the layer.

    Projections of an attention layer count as if all read its first input.
    """
    operator = next((_OPERATORS[base] for base in type(layer).__mro__ if base in _OPERATORS), "FULLY_CONNECTED")
    shape = spec.view.view_shape
    return [
        LayoutRequest(
            operator,
            shape,
            own.granularity.block_shape(*shape[:2]),
            own.scaler,
            bits,
            own.device_activation_bits,
            is_shift_scaler=own.is_shift_scaler,
            computes=COMPUTES[own.activations],
            window=Window() if operator == "FULLY_CONNECTED" else _window(layer, operator, sizes),
            input_sizes=sizes,
        )
        for sizes in _input_sizes(layer, operator)
    ]


def _input_sizes(layer: keras.Layer, operator: str) -> Iterator[tuple[int, ...]]:
    """Shape of what the operator reads in each call of a layer of a canonical model, which is in no other model."""
    for node in layer._inbound_nodes:
        sizes = tuple(-1 if size is None else int(size) for size in node.input_tensors[0].shape)
        if operator != "FULLY_CONNECTED" and len(sizes) == 3:  # a convolution along one axis is one of height 1
            if layer.padding == "causal" and sizes[1] >= 0:  # zeros are put in front
                before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
                sizes = (sizes[0], sizes[1] + before, sizes[2])
            sizes = (sizes[0], 1, *sizes[1:])
        yield sizes


def _window(layer: keras.Layer, operator: str, sizes: tuple[int, ...]) -> Window:
    def pair(name: str) -> tuple[int, int]:
        value = getattr(layer, name, 1)
        values = (value,) if isinstance(value, int) else tuple(value)
        return (1, *values) if len(values) == 1 else (values[0], values[1])

    return Window(
        kernel=pair("kernel_size"),
        strides=pair("strides"),
        dilations=pair("dilation_rate"),
        padding="same" if layer.padding == "same" else "valid",
        groups=sizes[-1] if operator == "DEPTHWISE_CONV_2D" else getattr(layer, "groups", 1),
        transposed=operator == "TRANSPOSE_CONV",
    )
