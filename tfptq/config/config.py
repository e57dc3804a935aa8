"""The quantization config: an immutable value.

Change one with ``replace(**changes)``, start from a preset with ``from_preset(name)``, store it with ``to_json`` and
``from_json``. Invalid values are refused when the object is made, with a message that names the field and the allowed
values; so are fields that would have no effect (``effects``).
"""

import copy
import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfptq.base.arguments import one_of
from tfptq.config.combinations import FLOAT16, check_combination
from tfptq.config.effects import without_effect
from tfptq.config.fields import COMPUTES, check_fields, resolved_fields
from tfptq.config.parts import Calibration, LayerOverride, MixedPrecision, Rounding, override
from tfptq.config.serialization import decode, encode, encode_changes, read_json
from tfptq.config.target import TARGETS, Target
from tfptq.core.blocks import BlockScales
from tfptq.core.granularity import Granularity, PerTensor
from tfptq.core.weight_scales import fit_scales
from tfptq.tflite.layouts import Computes
from tfptq.tflite.stored_config import LEFT_OUT

#: The preset that a config without any argument is.
DEFAULT_PRESET = "w8a8_shift"


@dataclass(frozen=True)
class QuantizationConfig:
    """All settings of a quantization.

    Attributes:
        granularity: which weights share a scale: ``PerTensor()``, ``PerChannel()`` or ``PerBlock(m, n)``.
        scaler: kind of the scales. ``"float"``: any numbers. ``"shift"``: powers of two times one scale, with
            ``PerTensor()`` a 4-bit shift for each output channel (WES), with ``PerBlock`` a scale for each row of
            blocks and a shift for each block. ``"integer"``: with ``PerBlock``, a scale for each row of blocks and an
            integer for each block, whose product with a code fits int8: up to 16 at 2 and 3 bits, 15 at 4, 8 at 5, 4 at
            6, 1 at 8. ``"auto"``: ``"shift"`` with ``PerTensor()``, ``"float"`` otherwise.
        weight_bits: 2, 3, 4, 5, 6 or 8; 16 for float16 weights, with ``activations="float"``.
        activations: how the file computes activations. ``"static"``: as integers, with ranges from the calibration
            samples. ``"auto"``: as ``"static"``, except that regions between kernels stay in float where 8 bits lose
            much accuracy and float costs little latency, within ``latency_budget``. ``"dynamic"``: in float, and dense
            layers and convolutions quantize their inputs to 8 bits at run time, which suits transformers.
            ``"float"``: in float; only the weights are quantized.
        activation_bits: 8 on all devices; 16 for 16-bit activations with 8-bit weights (16x8); 4 to 7 are simulated in
            Keras only, and the file has 8.
        activation_aware: fit weights on activations rounded to ``activation_bits``, which must be 8 or less.
        weight_scale: how scales are chosen: ``"max_abs"``, ``"mse"`` (least squared error of the weights) or
            ``"output"`` (least error of the layer's output, PTQ-SL).
        rounding: how weights are rounded to codes; the name of a method selects its default options.
        statistics_samples: number of samples for the statistics of layers; None for all.
        equalize: scale channels of consecutive layers against each other: for layers of less than 8 bits where that
            lowers their error, and at 8 bits where channels of one activation differ in magnitude. Requires more than
            one scale in the layers that read them.
        rotate: mix channels by a learned rotation where everything between layers of less than 8 bits is linear, as in
            the bottlenecks of inverted residuals, so that weights become more even in magnitude.
        reorder: reorder channels across layers, so that similar channels share a block.
        mixed_precision: choose ``weight_bits`` for each layer; ``weight_bits`` itself then applies only to layers for
            which an override sets it.
        edge_bits: minimum width of weights in the layers next to the inputs and outputs of the model: the first and
            last layer of a chain, the first of each branch and the last of each head. These layers have a scale per
            channel where others have blocks. None treats them like all others.
        target: the kind of device: ``"cpu"`` (phones, PCs), ``"web"``, ``"micro"``, ``"npu"``, ``"any"``, or a
            ``Target``. It decides how kernels of less than 8 bits are stored; those that it could not store any smaller
            have 8 bits.
        batch_size: 1 for files that take one sample at a time; None for the batch size of the model, or that of the
            target if the model leaves it open.
        unroll_steps: maximum length of sequences for which GRU, LSTM and SimpleRNN layers are unrolled into ordinary
            operators. Other LSTM layers become one operator where possible, and other layers a loop in float.
        latency_budget: maximum latency on the target, as a multiple of the latency with all weights INT8, as far as it
            was measured; for layouts of less than 8 bits and for regions in float.
        layout: how codes are stored in the file: ``"size"`` (smallest layout within ``latency_budget``) or ``"speed"``
            (smallest layout that is as fast as INT8) choose among the layouts of the target; or the name of a layout.
        multipliers: integers to which ``scaler="integer"`` is limited; None for all. With few, such as
            ``(2, 3, 4, 6)``, int8 codes have few distinct values, and NPU compilers compress them better.
        calibration: how ranges of activations are chosen; the name of a method selects its default options.
        bias_correction: subtract the mean error that rounding of weights causes from the bias.
        skip: keep the layer in float.
        overrides: other values for layers, kernels and operators of the file; later ones take precedence.
        tail: patterns, as in overrides, of layers or tensors of the float file. Everything that depends on them stays
            in float, up to the outputs.
        input_type: type of the inputs of the file: ``"float32"``, ``"int8"`` or ``"uint8"``; ``"float32"`` or
            ``"int16"`` with 16-bit activations. None for the type that the target has.
        output_type: the same for the outputs.
        metadata: ``"full"`` stores a description of the blocks, for compilers and ``tfptq.verify``; ``"none"`` does
            not, for the smallest file.
        name: preset that the config was made from; ``label`` says whether it was changed.
    """

    granularity: Granularity = PerTensor()
    scaler: str = "auto"
    weight_bits: int = 8
    activations: str = "static"
    activation_bits: int = 8
    activation_aware: bool = False
    weight_scale: str = "mse"
    rounding: Rounding = Rounding("coordinate", most_inputs=640)
    statistics_samples: int | None = 64
    equalize: bool = True
    rotate: bool = False
    reorder: bool = False
    mixed_precision: MixedPrecision | None = None
    edge_bits: int | None = 8
    target: Target = TARGETS["cpu"]
    batch_size: int | None = None
    unroll_steps: int = 0
    latency_budget: float = 1.35
    layout: str = "size"
    multipliers: tuple[int, ...] | None = None
    calibration: Calibration = Calibration()
    bias_correction: bool = True
    skip: bool = False
    overrides: tuple[LayerOverride, ...] = ()
    tail: tuple[str, ...] = ()
    input_type: str | None = None
    output_type: str | None = None
    metadata: str = "full"
    name: str = DEFAULT_PRESET

    if TYPE_CHECKING:  # names stand for parts and lists for tuples, which fields then hold

        def __init__(
            self,
            granularity: Granularity = ...,
            scaler: str = ...,
            weight_bits: int = ...,
            activations: str = ...,
            activation_bits: int = ...,
            activation_aware: bool = ...,
            weight_scale: str = ...,
            rounding: Rounding | str = ...,
            statistics_samples: int | None = ...,
            equalize: bool = ...,
            rotate: bool = ...,
            reorder: bool = ...,
            mixed_precision: MixedPrecision | None = ...,
            edge_bits: int | None = ...,
            target: Target | str = ...,
            batch_size: int | None = ...,
            unroll_steps: int = ...,
            latency_budget: float = ...,
            layout: str = ...,
            multipliers: Sequence[int] | None = ...,
            calibration: Calibration | str = ...,
            bias_correction: bool = ...,
            skip: bool = ...,
            overrides: Sequence[LayerOverride] = ...,
            tail: Sequence[str] | str = ...,
            input_type: str | None = ...,
            output_type: str | None = ...,
            metadata: str = ...,
            name: str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        self._check_fields()
        check_combination(self)
        for problem in without_effect(self._variants()).values():
            raise ValueError(problem)

    def _variants(self) -> list["QuantizationConfig"]:
        """The config, and once with each override; their fields are checked one by one.

        Which fields come together is known for a layer: later overrides may complete one (``for_layer``).
        """
        return [self, *map(self._variant, self.overrides)]

    def _variant(self, item: LayerOverride) -> "QuantizationConfig":
        if not isinstance(item, LayerOverride):
            raise ValueError(f"overrides holds {item!r}; build its members with override(pattern, **changes)")
        if dict(item.changes).get("activations") == "auto":
            raise ValueError(
                f"the override for {item.pattern!r} has activations='auto', which chooses operators of a whole model; "
                "give it to the config itself"
            )
        try:
            return self._unchecked({**dict(item.changes), **self._without_ends(item.changes)})
        except ValueError as error:
            raise ValueError(f"the override for {item.pattern!r}: {error}") from error

    @staticmethod
    def _without_ends(fields: Iterable[Any]) -> dict[str, None]:
        """Types of inputs and outputs, which are those of the model, where a layer has activations of its own."""
        return {"input_type": None, "output_type": None} if "activation_bits" in dict(fields) else {}

    def _unchecked(self, changes: dict[str, Any]) -> "QuantizationConfig":
        """Copy with other values, each checked by itself only."""
        found = copy.copy(self)
        vars(found).update(changes)
        found._check_fields()
        return found

    def _check_fields(self) -> None:
        vars(self).update(resolved_fields(self))
        check_fields(self)

    def without_samples(self) -> "QuantizationConfig":
        """The config without settings that need samples: scales from the weights alone, rounding to nearest.

        Weights of 8 bits have the scales of least squared error, narrower ones scales that clip nothing: which weights
        can be clipped depends on the inputs.

        Raises:
            ValueError: activations on integers need ranges; bits by sensitivity need samples.
        """
        if any(item.on_integers and not item.keeps_weights for item in self._variants()):
            raise ValueError(
                "dataset=None goes with float activations alone: integers need the ranges of activations; give "
                "samples, or take activations='dynamic', as the preset 'w8_dynamic' has it, or 'float'"
            )
        if self.mixed_precision is not None and self.mixed_precision.by == "sensitivity":
            raise ValueError(
                "dataset=None leaves mixed_precision by='sensitivity' without samples; take by='coding_length'"
            )
        weights = {"weight_scale": self._scale_without_samples, "rounding": Rounding(), "bias_correction": False}
        own = []
        for item in self.overrides:
            changes = {name: weights.get(name, value) for name, value in item.changes}
            if "weight_bits" in changes:
                changes["weight_scale"] = self._unchecked(dict(item.changes))._scale_without_samples
            own.append(override(item.pattern, **changes))
        return self.replace(**weights, equalize=False, statistics_samples=None, overrides=own)

    @property
    def _scale_without_samples(self) -> str:
        return "mse" if self.weight_bits >= 8 else "max_abs"

    @property
    def label(self) -> str:
        """Name of the preset, and the fields in which the config differs from it; for reports."""
        preset = PRESETS.get(self.name, self)
        fields = [field.name for field in dataclasses.fields(self) if field.name != "name"]
        changed = [field for field in fields if getattr(self, field) != getattr(preset, field)]
        return f"{self.name} (changed: {', '.join(changed)})" if changed else self.name

    @property
    def is_shift_scaler(self) -> bool:
        """Whether weights have one scale for the layer and a shift for each output channel (WES)."""
        return self.scaler == "shift" and isinstance(self.granularity, PerTensor)

    @property
    def on_integers(self) -> bool:
        """Whether activations of the file are integers, all or most of them."""
        return COMPUTES[self.activations] is Computes.INTEGER

    @property
    def keeps_weights(self) -> bool:
        """Whether weights stay float numbers, of 32 or of 16 bits, and nothing is fitted."""
        return self.skip or self.weight_bits == FLOAT16

    @property
    def interface_types(self) -> tuple[str, str]:
        """Types of the inputs and of the outputs in the file: those of the config, or of the target."""
        integer = {"int8": "int16"}.get(self.target.end_type) if self.activation_bits == 16 else self.target.end_type
        own = integer or self.target.end_type
        return self.input_type or own, self.output_type or own

    def takes_single(self, model_batch: int | None) -> bool:
        """Whether the file takes one sample at a time; ``model_batch`` is None where it is open."""
        return 1 in (self.batch_size, self.target.batch_size if model_batch is None else None)

    @property
    def device_activation_bits(self) -> int:
        """Width of the activations in the file: 4 to 7 bits are simulated in Keras, and 8 in the file."""
        return max(self.activation_bits, 8)

    def replace(self, **changes: Any) -> "QuantizationConfig":
        """Copy with other values.

        Fields that have no effect any more are reset to their defaults, unless the same call names them: a preset with
        ``rotate`` can be changed to 8 bits. The same applies to a ``scaler`` that a new granularity does not support.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            one_of("config field", name, known)
        return self._changed(changes, keep=changes)

    def _changed(self, changes: dict[str, Any], keep: Iterable[str]) -> "QuantizationConfig":
        """Copy with other values, where fields without an effect have their defaults, except those to keep."""
        whole = self._unchecked(changes)
        if "scaler" not in changes and whole.scaler not in whole.granularity.scale_kinds:
            return self._changed({**changes, "scaler": "auto"}, keep)
        lost = without_effect(whole._variants()).keys() - set(keep)
        defaults = {field.name: field.default for field in dataclasses.fields(self) if field.name in lost}
        return dataclasses.replace(self, **{**changes, **defaults})

    def scales_of(self, view: np.ndarray, symmetric: bool = False) -> BlockScales:
        """Scales of a weight ``[O, I, T]`` of the layer that this is the config of, from the weights alone.

        Scales by output error need statistics (``core.scale_search``); here they are those by weight error.
        """
        by_error = self.weight_scale != "max_abs"
        return fit_scales(
            view,
            self.granularity,
            self.weight_bits,
            self.scaler,
            by_error=by_error,
            allowed=self.multipliers,
            symmetric=symmetric,
        )

    def for_layer(self, layer_name: str) -> "QuantizationConfig":
        """The config of one layer: this one with all matching overrides applied, and without overrides.

        Fields that have no effect on the layer have their defaults. Values that do not go together are refused; the
        message names the layer and the overrides.
        """
        found = self.overridden(layer_name)
        changes: dict[str, Any] = {field: value for field, (_, value) in found.items()}
        if "weight_bits" in changes:
            changes["mixed_precision"] = None  # it chooses the widths of the other layers
        if COMPUTES[changes.get("activations", "static")] is not Computes.INTEGER:
            # The ends of the model are none of the layer.
            changes.update(input_type="float32", output_type="float32", activation_bits=8)
        try:
            return self._changed({**self._without_ends(changes.items()), **changes, "overrides": ()}, keep=())
        except ValueError as error:
            given = ", ".join(f"{field}={value!r} ({item.pattern!r})" for field, (item, value) in found.items())
            raise ValueError(
                f"layer {layer_name!r} gets values by overrides that do not fit each other or the rest of the config: "
                f"{given}: {error}"
            ) from error

    def overridden(self, layer_name: str) -> dict[str, tuple[LayerOverride, Any]]:
        """Field -> the last override that sets it for a layer, and its value there."""
        return {
            field: (item, value) for item in self.overrides if item.matches(layer_name) for field, value in item.changes
        }

    def overrides_field(self, layer_name: str, field: str) -> bool:
        """Whether an override sets a field for a layer."""
        return field in self.overridden(layer_name)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return encode(self)

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text; ``from_json`` gives an equal config back."""
        return json.dumps(self.to_dict(), indent=indent, sort_keys=True)

    def to_compact_json(self) -> str:
        """JSON text for the metadata of a file; ``from_compact_json`` gives an equal config back, in any release.

        It omits the values that ``docs/format.md`` fixes, and does not depend on the defaults or presets of a release.
        """
        return json.dumps(encode_changes(self, BASELINE), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_compact_json(cls, text: str) -> "QuantizationConfig":
        """Read the config in the metadata of a file, of this release or of an earlier one."""
        return BASELINE.replace_json(read_json(text))

    @classmethod
    def from_json(cls, text: str) -> "QuantizationConfig":
        """Read what ``to_json`` wrote. Missing fields are those of the preset that a key ``preset`` names."""
        values = read_json(text)
        return cls.from_preset(values.pop("preset", DEFAULT_PRESET)).replace_json(values)

    def replace_json(self, values: dict[str, Any]) -> "QuantizationConfig":
        """``replace`` with values as ``to_dict`` writes them."""
        return self.replace(**decode(values))

    @classmethod
    def from_preset(cls, name: str) -> "QuantizationConfig":
        """Look a preset up by name."""
        one_of("preset", name, PRESETS)
        return PRESETS[name].replace(name=name)


#: What the metadata of a file leaves out.
BASELINE = QuantizationConfig(**decode(LEFT_OUT))
#: Ready-made configs; ``tfptq.config.presets`` fills it.
PRESETS: dict[str, QuantizationConfig] = {}
