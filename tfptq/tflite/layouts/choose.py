"""Choose the layout of a layer.

Whether a layout holds the weights exactly follows from the config of the layer, its operator and its shape alone, but
for one question: do all codes times multipliers fit 4 bits? So ``plan_layout`` decides before weights are fitted
whether the layer computes in integers, and ``settle_layout`` answers the question afterwards.

``speed`` takes ``int8`` where it is exact and ``inline`` elsewhere. ``size`` takes ``int4`` where one scale per output
channel suffices and the operator has a kernel for it, else ``int8``, else ``inline``. It does not trade integer
computation for bytes: a layer that could run on an integer device would become one that cannot.

The window of ``native`` is what stock kernels were found to compute (TF 2.21, LiteRT 2.3): outside of it they write
zeros or garbage without an error. Inside they still write zeros under the reference resolver, so ``native`` is only
taken when it is asked for by name.
"""

from tfptq.config import PerTensor, QuantizationConfig
from tfptq.core.blocks import QuantizedWeight

INTEGER_LAYOUTS = ("int8", "int4")
FLOAT_LAYOUTS = ("native", "inline", "composite")
#: Operators whose stock kernels read INT4 weights -> least operator version. Version 7 of DEPTHWISE_CONV_2D would be
#: the exact one, but the reference resolver knows six.
INT4_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 10}
#: Smallest and largest INT4 code.
INT4_RANGE = -8, 7
#: What the kernels of ``native`` demand.
NATIVE_BLOCK, NATIVE_OUTPUTS = 32, 4


class LayoutError(ValueError):
    """A layer cannot have the layout that the config names. The message says why, and which it can have."""


def plan_layout(layer: str, config: QuantizationConfig, operator: str, view_shape: tuple[int, int, int]) -> str:
    """Layout of a layer as far as it is known before its weights are fitted.

    Args:
        layer: name of the layer, for messages.
        config: config of the layer.
        operator: kind of the operator, such as ``CONV_2D``.
        view_shape: ``(O, I, T)`` of its kernel.

    Returns:
        A layout, or ``"size"`` for the smaller of the integer layouts, which ``settle_layout`` decides.

    Raises:
        LayoutError: the config names a layout that the layer cannot have.
    """
    if config.layout in ("size", "speed"):
        if layout_obstacle("int8", config, operator, view_shape):
            return "inline"
        may_shrink = config.layout == "size" and _int4_obstacle(config, operator) is None
        return "size" if may_shrink else "int8"
    problem = layout_obstacle(config.layout, config, operator, view_shape)
    if problem:
        possible = ", ".join(map(repr, _sure_layouts(config, operator, view_shape)))
        raise LayoutError(
            f"layer {layer!r} cannot have the layout {config.layout!r}: {problem}; it can have {possible}"
        )
    return config.layout


def settle_layout(layer: str, planned: str, weight: QuantizedWeight) -> str:
    """Layout of a layer whose weights are known.

    Args:
        layer: name of the layer, for messages.
        planned: what ``plan_layout`` returned.
        weight: the fitted weight.

    Raises:
        LayoutError: ``int4`` was asked for and a code times its multiplier needs more bits.
    """
    if planned not in ("size", "int4"):
        return planned
    form = weight.int8_form()
    low, high = (0, 0) if form is None else (int(form[0].min(initial=0)), int(form[0].max(initial=0)))
    if form is not None and INT4_RANGE[0] <= low and high <= INT4_RANGE[1]:
        return "int4"
    if planned == "size":
        return "int8"
    raise LayoutError(
        f"layer {layer!r} cannot have the layout 'int4': codes times multipliers go from {low} to {high}, and INT4 "
        f"from {INT4_RANGE[0]} to {INT4_RANGE[1]}; it can have 'int8', 'inline', 'composite', or 'int4' with one scale "
        "per output channel"
    )


def layout_obstacle(
    layout: str, config: QuantizationConfig, operator: str, view_shape: tuple[int, int, int]
) -> str | None:
    """Why a layer cannot have a layout, or None when it can.

    Args:
        layout: one of ``INTEGER_LAYOUTS`` or ``FLOAT_LAYOUTS``.
        config: config of the layer.
        operator: kind of the operator.
        view_shape: ``(O, I, T)`` of its kernel.
    """
    outputs, inputs, _ = view_shape
    _, width = config.granularity.block_shape(outputs, inputs)
    if layout in INTEGER_LAYOUTS and width < inputs and config.scaler == "float":
        return (
            f"it has float scales for every {width} of its {inputs} input channels, and {layout} has one scale per "
            "output channel (scaler='integer' or 'shift' would fit)"
        )
    if layout == "int4":
        return _int4_obstacle(config, operator)
    if layout == "native":
        return _native_obstacle(config, operator, outputs, inputs, width)
    return None


def _sure_layouts(config: QuantizationConfig, operator: str, view_shape: tuple[int, int, int]) -> list[str]:
    """Layouts that the layer can have whatever its weights will be.

    Codes of several blocks in a row are stored times their multipliers, and whether those products fit INT4 is known
    after fitting only; most do not.
    """
    outputs, inputs, _ = view_shape
    multiplied = config.granularity.block_shape(outputs, inputs)[1] < inputs
    return [
        name
        for name in INTEGER_LAYOUTS + FLOAT_LAYOUTS
        if not layout_obstacle(name, config, operator, view_shape) and not (multiplied and name == "int4")
    ]


def _int4_obstacle(config: QuantizationConfig, operator: str) -> str | None:
    if config.weight_bits > 4:
        return f"its codes have {config.weight_bits} bits"
    if operator not in INT4_VERSIONS:
        return f"stock runtimes have no INT4 kernel for {operator}"
    if config.device_activation_bits != 8:
        return "INT4 kernels read 8-bit activations only"
    return None


def _native_obstacle(config: QuantizationConfig, operator: str, outputs: int, inputs: int, width: int) -> str | None:
    if operator != "FULLY_CONNECTED":
        return f"stock runtimes have blockwise kernels for FULLY_CONNECTED and not for {operator}"
    if config.weight_bits > 4:
        return f"its codes have {config.weight_bits} bits, and blockwise kernels read INT4"
    if isinstance(config.granularity, PerTensor) and config.scaler == "shift":
        return "its shifts span more than the float16 scales of blockwise kernels hold"
    if outputs < NATIVE_OUTPUTS:
        return f"it has {outputs} outputs, and blockwise kernels write zeros for fewer than {NATIVE_OUTPUTS}"
    if width % NATIVE_BLOCK or inputs % width:
        return (
            f"its blocks hold {width} of {inputs} inputs; blockwise kernels compute garbage unless a block holds a "
            f"multiple of {NATIVE_BLOCK} inputs and blocks divide the inputs evenly"
        )
    return None
