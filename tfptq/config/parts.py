"""The parts of a quantization config: calibration, rounding, mixed precision, overrides.

Frozen dataclasses that check their own fields; ``tfptq.config`` puts them together and exports them.
"""

import dataclasses
import fnmatch
import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tfptq.base.arguments import between, check_types, one_of, plain
from tfptq.core.affine import WEIGHT_BITS
from tfptq.core.ranges import CALIBRATION_METHODS
from tfptq.core.rounding import ROUNDING_METHODS, RoundingMethod


def refuse_unread(part: Any, name: str, read: Iterable[str], remedies: dict[str, str]) -> None:
    """Refuse fields of a part of a config that are set and not read; ``remedies`` says what would read them."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name not in read and value != field.default:
            raise ValueError(
                f"{name}.{field.name}={value!r} has no effect without {remedies[field.name]}; leave it out, or name "
                "that as well"
            )


@dataclass(frozen=True)
class Calibration:
    """How ranges of activations are chosen.

    Inputs of the model always have the full range of the samples, as with ``"min_max"``: they often are on a grid
    already, such as that of pixels.

    Attributes:
        method: ``"min_max"``, ``"percentile"`` or ``"mse"``. With 16-bit activations, ``"mse"`` gives ranges four
            times as large as those of the samples.
        percentile: share of the values kept, in percent, for ``"percentile"``.
        bins: number of histogram bins for ``"percentile"`` and ``"mse"``.
    """

    method: str = "mse"
    percentile: float = 99.99
    bins: int = 2048

    def __post_init__(self):
        check_types(self)
        one_of("calibration.method", self.method, CALIBRATION_METHODS)
        between("calibration.percentile", self.percentile, 50.0, 100.0)
        between("calibration.bins", self.bins, 256, 65536)
        read = {"min_max": (), "percentile": ("percentile", "bins"), "mse": ("bins",)}[self.method]
        remedies = {"percentile": "method='percentile'", "bins": "method='percentile' or method='mse'"}
        refuse_unread(self, "calibration", ("method", *read), remedies)


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded to codes.

    Attributes:
        method: ``"nearest"``, or with statistics of the layer ``"coordinate"`` (sequential rounding with error
            feedback, then coordinate descent), ``"attention"`` (Attention Round) or ``"adaround"``.
        steps: Adam steps for ``"attention"`` and ``"adaround"``.
        learning_rate: of Adam, for ``"attention"`` in units of the scale; None for the default of the method.
        tau: width of the attention, in units of the scale, for ``"attention"``.
        damping: regularization towards the float weights, in units of the mean input power. Not for ``"nearest"``.
        most_inputs: kernels with more inputs per output than this are rounded to nearest, because the cost of
            statistics grows with the square of the inputs; None for no limit. Not for ``"nearest"``.
    """

    method: str = "nearest"
    steps: int = 500
    learning_rate: float | None = None
    tau: float = 0.5
    damping: float = 0.2
    most_inputs: int | None = None

    def __post_init__(self):
        check_types(self)
        one_of("rounding.method", self.method, ROUNDING_METHODS)
        between("rounding.steps", self.steps, 1, 1_000_000)
        between("rounding.tau", self.tau, 1e-3, 1e3)
        between("rounding.damping", self.damping, 0.0, 1e3)
        if self.most_inputs is not None:
            between("rounding.most_inputs", self.most_inputs, 1, 2**20)
        if self.learning_rate is not None:
            between("rounding.learning_rate", self.learning_rate, 1e-8, 10.0)
        remedies = {field.name: _readers(field.name) for field in dataclasses.fields(self)}
        refuse_unread(self, "rounding", _fields_of(ROUNDING_METHODS[self.method]), remedies)

    @property
    def learns(self) -> bool:
        """Whether the method reads statistics of the layer."""
        return ROUNDING_METHODS[self.method].learns

    def options(self) -> Any:
        """The options object of the method, for ``tfptq.core.rounding.round_weight``."""
        method = ROUNDING_METHODS[self.method]
        values = {name: getattr(self, name) for name in method.option_names}
        return method.options(**{name: value for name, value in values.items() if value is not None})


def _fields_of(method: RoundingMethod) -> tuple[str, ...]:
    """The fields of ``Rounding`` that a method reads."""
    return ("method", *method.option_names, *(("damping", "most_inputs") if method.learns else ()))


def _readers(field: str) -> str:
    """The methods that read a field of ``Rounding``."""
    return " or ".join(f"method={name!r}" for name, method in ROUNDING_METHODS.items() if field in _fields_of(method))


@dataclass(frozen=True)
class MixedPrecision:
    """How the weight bits of each layer are chosen.

    Set a budget: ``ratio``, ``budget_bytes`` or, by coding length, ``average_bits``. Without one, layers are clustered
    by k-means over their coding lengths, as in the paper, and clusters get the widths of ``bits`` in the order of their
    rates. That ignores how much the rates differ: even similar layers get widths from 2 to 8, and the file is worse
    than with 4 bits for all layers.

    Attributes:
        bits: widths to choose from; layers that the target always stores as INT8 have 8.
        by: ``"coding_length"``: the lossy coding length of the weights; ``"sensitivity"``: how much rounding each layer
            increases the error of the outputs, measured on samples.
        average_bits: average over the weights of all layers without a fixed width.
        budget_bytes: size of all kernels in the file, codes and scales.
        ratio: the same relative to their size in INT8. If the target cannot get close to it, the report warns.
        eps: distortion of the coding length, in units of a layer's root mean square weight, for a layer of mean size;
            it grows with the root of the number of weights.
    """

    bits: Sequence[int] = WEIGHT_BITS
    by: str = "coding_length"
    average_bits: float | None = None
    budget_bytes: int | None = None
    ratio: float | None = None
    eps: float = 0.1

    def __post_init__(self):
        object.__setattr__(self, "bits", tuple(self.bits) if isinstance(self.bits, Iterable) else self.bits)
        check_types(self)
        if not self.bits:
            raise ValueError(f"mixed_precision.bits is (); give at least one of {', '.join(map(str, WEIGHT_BITS))}")
        for width in self.bits:
            one_of("mixed_precision.bits", width, WEIGHT_BITS)
        between("mixed_precision.eps", self.eps, 1e-6, 10.0)
        one_of("mixed_precision.by", self.by, ("coding_length", "sensitivity"))
        given = [name for name in ("average_bits", "budget_bytes", "ratio") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"mixed_precision takes one budget, not both {given[0]} and {given[1]}")
        if self.by == "sensitivity" and not self.by_real_bytes:
            raise ValueError("mixed_precision by='sensitivity' needs a budget: ratio=0.6, say, or budget_bytes")
        if self.ratio is not None:
            between("mixed_precision.ratio", self.ratio, 0.01, 1.0)
        if self.budget_bytes is not None:
            between("mixed_precision.budget_bytes", self.budget_bytes, 1, 2**63 - 1)
        if self.average_bits is not None:
            between("mixed_precision.average_bits", self.average_bits, min(self.bits), max(self.bits))

    @property
    def by_real_bytes(self) -> bool:
        """Whether the budget is one of bytes in the file."""
        return self.budget_bytes is not None or self.ratio is not None


#: Fields of ``QuantizationConfig`` that overrides can set.
LAYER_FIELDS = (
    "granularity",
    "scaler",
    "multipliers",
    "weight_bits",
    "activation_bits",
    "activations",
    "weight_scale",
    "rounding",
    "bias_correction",
    "layout",
    "unroll_steps",
    "skip",
)


#: How the pattern of an override begins that is a regular expression.
_REGULAR = "re:"


@dataclass(frozen=True)
class LayerOverride:
    """Other values for the layers whose name matches a pattern.

    Kernels inside of a layer that tfptq does not know go by their path, ``"block/dense"``; a pattern for ``"block"``
    covers them, too. Operators without a kernel go by the paths and names of their results: ``skip=True`` leaves them
    in float, and ``activation_bits=16`` gives them finer activations.

    Attributes:
        pattern: shell-style, such as ``"block_3_*"``; or a regular expression for the whole name behind ``re:``, such
            as ``"re:block_[0-9]+_(expand|project)"``. ``exactly(name)`` is the pattern of one layer.
    """

    pattern: str
    changes: tuple[tuple[str, Any], ...]  # fields out of ``LAYER_FIELDS`` and their values, sorted

    def __post_init__(self):
        if not isinstance(self.pattern, str):
            raise ValueError(
                f"the pattern of an override is {self.pattern!r}; give the name of a layer or a pattern of names"
            )
        if self.pattern.startswith(_REGULAR):
            try:
                re.compile(self.pattern.removeprefix(_REGULAR))
            except re.error as error:
                raise ValueError(f"the override pattern {self.pattern!r} is no regular expression: {error}") from error
        object.__setattr__(self, "changes", tuple((name, plain(value)) for name, value in self.changes))
        for name, _ in self.changes:
            one_of(f"field of the override for {self.pattern!r}", name, LAYER_FIELDS)

    def matches(self, layer_name: str) -> bool:
        """Whether the pattern covers a layer, or one that it is inside of."""
        parts = layer_name.split("/")
        return any(self._matches("/".join(parts[:end])) for end in range(1, len(parts) + 1))

    def _matches(self, name: str) -> bool:
        if self.pattern.startswith(_REGULAR):
            return re.fullmatch(self.pattern.removeprefix(_REGULAR), name) is not None
        return fnmatch.fnmatchcase(name, self.pattern)

    @property
    def is_for_operators(self) -> bool:
        """Whether it sets what operators without a kernel have, too."""
        return not {"skip", "activation_bits"}.isdisjoint(dict(self.changes))

    def names(self, layer_name: str) -> bool:
        """Whether the pattern is the name of this very layer."""
        return self.pattern in (layer_name, exactly(layer_name)) and not self.pattern.startswith(_REGULAR)

    def matches_whole_of(self, layer_name: str) -> bool:
        """Whether the pattern covers the separable convolution that a layer may be a half of."""
        names = (layer_name.removesuffix(ending) for ending in ("_depthwise", "_pointwise"))
        return any(name != layer_name and self.matches(name) for name in names)


def exactly(layer_name: str) -> str:
    """The pattern of one layer, also of one whose name has signs of patterns in it."""
    escaped = glob.escape(layer_name)
    return f"[{escaped[0]}]{escaped[1:]}" if escaped.startswith(_REGULAR) else escaped


def override(pattern: str, **changes: Any) -> LayerOverride:
    """Build a ``LayerOverride``: ``override("logits", weight_bits=8, granularity=PerChannel())``."""
    return LayerOverride(pattern, tuple(sorted(changes.items())))
