"""The parts of a quantization config: granularities, calibration, rounding, mixed precision, overrides.

Frozen dataclasses that check their own fields; ``tfptq.config`` puts them together and exports them.
"""

import dataclasses
import fnmatch
import functools
import glob
import numbers
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tfptq.core.affine import WEIGHT_BITS

#: How the codes of a kernel can be found.
ROUNDING_METHODS = ("nearest", "coordinate", "attention", "adaround")
#: What Attention Round can start from.
ROUNDING_STARTS = ("coordinate", "nearest", "gaussian")


def one_of(field: str, value: Any, allowed) -> None:
    """Refuse a value that is not among those allowed, naming the field."""
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


def plain(value: Any) -> Any:
    """A number of numpy's, or of another library's, as Python's own, and a list as a tuple; anything else as it is.

    Configs are compared, hashed and written as JSON, for which they hold Python's own values.
    """
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    if isinstance(value, bool | str) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def check_types(config: Any) -> None:
    """Make numbers in a dataclass Python's own, and refuse values of other types than its fields declare.

    Raises:
        ValueError: a field holds a value of another type; it is named.
    """
    for name, kinds in _types_of_fields(type(config)).items():
        value = getattr(config, name)
        if not any(_is_a(plain(value), kind) for kind in kinds):
            wanted = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in kinds)
            raise ValueError(f"{type(config).__name__}.{name} is {value!r}; it must be of the type {wanted}")
        object.__setattr__(config, name, plain(value))


@functools.cache
def _types_of_fields(cls: type) -> dict[str, tuple[type, ...]]:
    hints = typing.get_type_hints(cls)
    choices = {name: typing.get_args(hint) if _is_union(hint) else (hint,) for name, hint in hints.items()}
    return {name: tuple(typing.get_origin(kind) or kind for kind in kinds) for name, kinds in choices.items()}


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _is_a(value: Any, kind: type) -> bool:
    """Whether a value is of a type, where a truth value is no number, and a whole number will do for a real one."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def between(field: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside of ``low`` to ``high``, naming the field.

    Limits that have no reason of their own lie far outside of what is of use: they refuse slips of the pen, such as a
    learning rate of 1e-30, and numbers that would overflow.
    """
    if not low <= value <= high:
        raise ValueError(f"{field} is {value}; it must be between {low} and {high}")


@dataclass(frozen=True)
class PerTensor:
    """One scale for a whole layer."""


@dataclass(frozen=True)
class PerChannel:
    """One scale for each output channel."""


@dataclass(frozen=True)
class PerBlock:
    """One scale for each block of output x input channels (PTQ-SL).

    Give the two sides of a block, or ``input_blocks`` alone. With ``input_blocks=H`` each layer's input channels are
    cut into ``H`` blocks, and as many output channels share a block as keep the number of scales at that of
    ``PerChannel`` or below: the same rule for narrow, wide and depthwise layers.

    Attributes:
        output_channels: height ``m`` of a block; the last block of a layer may be smaller.
        input_channels: width ``n`` of a block. Depthwise layers have one input channel.
        input_blocks: number ``H`` of blocks side by side, in place of ``m`` and ``n``; layers with fewer channels have
            fewer.
    """

    output_channels: int | None = None
    input_channels: int | None = None
    input_blocks: int | None = None

    def __post_init__(self):
        check_types(self)
        sides = (self.output_channels, self.input_channels)
        if (None in sides) if self.input_blocks is None else sides != (None, None):
            raise ValueError(
                f"{self} must have either output_channels and input_channels, or input_blocks alone: PerBlock(4, 8)"
            )
        for name, value in dataclasses.asdict(self).items():
            if value is not None:
                between(f"PerBlock.{name}", value, 1, 2**20)


Granularity = PerTensor | PerChannel | PerBlock
#: Name of a granularity -> its class.
GRANULARITIES = {cls.__name__: cls for cls in (PerTensor, PerChannel, PerBlock)}


@dataclass(frozen=True)
class Calibration:
    """How the range of an activation is found.

    The inputs of the model are left out: they are data on a grid of their own, pixels say, and their ranges hold all
    values of the samples, as with ``"min_max"``.

    Attributes:
        method: ``"min_max"``, ``"moving_average"``, ``"percentile"``, ``"mse"`` or ``"kl"``. With 16-bit activations
            ``"mse"`` leaves room for values four times as large as those of the samples.
        percentile: share of the values kept, in percent, for ``"percentile"``.
        momentum: weight of the past for ``"moving_average"``.
        bins: number of histogram bins for the methods that need one.
    """

    method: str = "mse"
    percentile: float = 99.99
    momentum: float = 0.9
    bins: int = 2048

    def __post_init__(self):
        check_types(self)
        one_of("calibration.method", self.method, ("min_max", "moving_average", "percentile", "mse", "kl"))
        between("calibration.percentile", self.percentile, 50.0, 100.0)
        between("calibration.momentum", self.momentum, 0.0, 1.0)
        between("calibration.bins", self.bins, 256, 65536)


#: Option of ``Rounding`` -> the methods that read it.
_READERS_OF_ROUNDING = {
    "steps": ("attention", "adaround"),
    "learning_rate": ("attention", "adaround"),
    "tau": ("attention",),
    "start": ("attention",),
}


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded to codes.

    Attributes:
        method: ``"nearest"``; or on statistics of the layer: ``"coordinate"`` (sequential rounding with error feedback
            and coordinate descent), ``"attention"`` (Attention Round), ``"adaround"``.
        steps: steps of Adam for ``"attention"`` and ``"adaround"``.
        learning_rate: of Adam, for ``"attention"`` in units of the scale; None for the default of the method.
        tau: width of the attention, in units of the scale, for ``"attention"``.
        start: first offsets for ``"attention"``: ``"coordinate"``, ``"nearest"`` or ``"gaussian"``.
        refine_scales: how often scales and codes are refined in turn after rounding. Not for ``"nearest"``.
        damping: pull towards the float weights, in units of the mean input power.
        most_inputs: kernels with more inputs than this to an output are rounded to nearest, since the cost of
            statistics grows with the square of the inputs; None rounds all by the method.
    """

    method: str = "nearest"
    steps: int = 500
    learning_rate: float | None = None
    tau: float = 0.5
    start: str = "coordinate"
    refine_scales: int = 0
    damping: float = 0.2
    most_inputs: int | None = None

    def __post_init__(self):
        check_types(self)
        one_of("rounding.method", self.method, ROUNDING_METHODS)
        one_of("rounding.start", self.start, ROUNDING_STARTS)
        between("rounding.steps", self.steps, 1, 1_000_000)
        between("rounding.tau", self.tau, 1e-3, 1e3)
        between("rounding.refine_scales", self.refine_scales, 0, 100)
        between("rounding.damping", self.damping, 0.0, 1e3)
        if self.most_inputs is not None:
            between("rounding.most_inputs", self.most_inputs, 1, 2**20)
        if self.learning_rate is not None:
            between("rounding.learning_rate", self.learning_rate, 1e-8, 10.0)
        self._refuse_unused()

    def _refuse_unused(self):
        """No option is passed over in silence."""
        if self.method == "nearest" and self.refine_scales:
            raise ValueError(
                "rounding with refine_scales learns from the layer's outputs, which rounding.method='nearest' does "
                "not; give a method that does, such as 'coordinate'"
            )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, readers in _READERS_OF_ROUNDING.items():
            if getattr(self, name) != defaults[name] and self.method not in readers:
                wanted = " or ".join(f"method={reader!r}" for reader in readers)
                raise ValueError(
                    f"rounding.{name}={getattr(self, name)!r} has no effect without {wanted}; "
                    "leave it out, or name that as well"
                )


@dataclass(frozen=True)
class MixedPrecision:
    """Weight bits for each layer, by the lossy coding length of its weights.

    Give a budget (``average_bits`` or ``budget_bytes``). Without one, layers are clustered by k-means, as in the paper,
    and the cluster with the lowest rates gets the smallest width of ``bits``, the next one the next. That looks at
    the order of the rates and not at how far they lie apart: where they are nearly equal, as in a stack of equal
    layers, some layers get 2 bits and others 5 for a hundredth of a bit of difference, and the file is worse than one
    with 4 bits everywhere. Few ``bits`` that lie close together, such as ``(3, 4)``, limit the harm; a budget avoids
    it.

    Attributes:
        bits: widths to choose from.
        average_bits: average over the weights of the layers that are not pinned.
        budget_bytes: bytes of the packed codes of all layers, pinned ones included: what an NPU, or a store that packs
            codes, would hold. The ``.tflite`` file has INT8 and INT4 only, and holds codes of 5 and 6 bits in 8, and
            of 2 and 3 bits in 4 or 8; the report warns when its codes take more than the budget.
        eps: distortion of the coding length, in units of a layer's root mean square weight, for a layer of mean size;
            it grows with the root of the number of weights.
    """

    bits: tuple[int, ...] = WEIGHT_BITS
    average_bits: float | None = None
    budget_bytes: int | None = None
    eps: float = 0.1

    def __post_init__(self):
        object.__setattr__(self, "bits", tuple(self.bits) if isinstance(self.bits, Iterable) else self.bits)
        check_types(self)
        if not self.bits:
            raise ValueError(f"mixed_precision.bits is (); give at least one of {', '.join(map(str, WEIGHT_BITS))}")
        for width in self.bits:
            one_of("mixed_precision.bits", width, WEIGHT_BITS)
        between("mixed_precision.eps", self.eps, 1e-6, 10.0)
        if self.average_bits is not None and self.budget_bytes is not None:
            raise ValueError("mixed_precision takes average_bits or budget_bytes, not both")
        if self.budget_bytes is not None:
            between("mixed_precision.budget_bytes", self.budget_bytes, 1, 2**63 - 1)
        if self.average_bits is not None:
            between("mixed_precision.average_bits", self.average_bits, min(self.bits), max(self.bits))


#: Fields of ``QuantizationConfig`` that may differ from layer to layer.
LAYER_FIELDS = (
    "granularity",
    "scaler",
    "multipliers",
    "weight_bits",
    "weight_scale",
    "rounding",
    "bias_correction",
    "layout",
    "skip",
)


@dataclass(frozen=True)
class LayerOverride:
    """Other values for the layers whose name matches a pattern.

    Attributes:
        pattern: shell-style pattern (``"block_3_*"``) over Keras layer names; ``glob.escape(name)`` for one layer whose
            name has ``*``, ``?`` or ``[`` in it.
        changes: field name -> value, as sorted pairs; fields out of ``LAYER_FIELDS``.
    """

    pattern: str
    changes: tuple[tuple[str, Any], ...]

    def __post_init__(self):
        object.__setattr__(self, "changes", tuple((name, plain(value)) for name, value in self.changes))
        for name, _ in self.changes:
            one_of(f"field of the override for {self.pattern!r}", name, LAYER_FIELDS)

    def matches(self, layer_name: str) -> bool:
        """Whether the pattern covers a layer."""
        return fnmatch.fnmatchcase(layer_name, self.pattern)

    def names(self, layer_name: str) -> bool:
        """Whether the pattern is the name of this very layer."""
        return self.pattern in (layer_name, glob.escape(layer_name))


def override(pattern: str, **changes) -> LayerOverride:
    """Build a ``LayerOverride``: ``override("logits", weight_bits=8, granularity=PerChannel())``."""
    return LayerOverride(pattern, tuple(sorted(changes.items())))
