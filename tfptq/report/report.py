"""The report of one quantization: plain values that turn into a table or JSON.

Signal-to-noise ratios are in decibels, ``10 log10(sum r^2 / sum (r - q)^2)`` for float values ``r`` and what
the quantized model has in their place ``q``: 6 dB more is half the error. Infinity means that both are equal.
"""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """One quantized layer.

    Attributes:
        name: name of the Keras layer.
        type: its class.
        granularity: which weights share a scale: ``"tensor"``; ``"tensor + shifts"`` where each output channel has a
            shift of it (WES); ``"channel"``, for each output channel; or blocks of output x input channels with the
            kind of their scales, such as ``"block 1x16 integer"``.
        bits: width of the weight codes.
        layout: how the file holds the weight, such as ``"int8"``.
        scales: number of scales, or of shifts, that the weight has.
        bytes_before: bytes of the layer's weights and biases in the float file.
        bytes_after: the same in the quantized file.
        weight_snr_db: signal-to-noise ratio of the weights.
        output_snr_db: signal-to-noise ratio of the layer's output in the quantized model; None if not measured.
        noise_before: expected noise of the layer's blocks, relative to its weights, before reordering of channels
            (``tfptq.prepare.reorder``); None without reordering or blocks.
        noise_after: the same after reordering.
        rounding: how its codes were found, such as ``"nearest"`` or ``"attention"``.
    """

    name: str
    type: str
    granularity: str
    bits: int
    layout: str
    scales: int
    bytes_before: int
    bytes_after: int
    weight_snr_db: float
    output_snr_db: float | None = None
    noise_before: float | None = None
    noise_after: float | None = None
    rounding: str = "nearest"


@dataclass(frozen=True)
class BlockPicture:
    """Largest magnitudes in the blocks of one layer, before and after reordering of channels.

    Attributes:
        layer: name of the Keras layer.
        before: rows (blocks of output channels) of columns (blocks of input channels). Large layers are shown in
            fewer pixels than blocks.
        after: the same after reordering.
    """

    layer: str
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SkippedLayer:
    """A layer with weights that its config was not applied to, and why.

    Attributes:
        name: name of the Keras layer.
        type: its class.
        reason: why the config was not applied.
    """

    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class FloatOperator:
    """An operator of the file that computes in float, and why.

    Attributes:
        operator: TFLite name such as ``"EXP"``.
        tensor: name of its first output.
        reason: why it has no integer form.
    """

    operator: str
    tensor: str
    reason: str


@dataclass(frozen=True)
class Report:
    """Everything worth knowing about one quantization.

    Attributes:
        model_name: name of the Keras model.
        preset: name of the preset, and the fields that were changed; ``"custom"`` when there was none.
        samples: number of calibration samples.
        seed: seed of everything random.
        file_bytes: size of the quantized file.
        float_file_bytes: size of the float file of the same model.
        layers: the quantized layers, in the order of computation.
        skipped: layers with weights that compute in float.
        float_operators: operators of the file that stayed in float.
        warnings: what the user should look at.
        float_differences: step that must not change the model -> largest difference of its outputs from those
            of the original, relative to the range of the output.
        seconds: step -> wall time.
        pictures: blocks of the layers that reordering of channels helped most.
        unfitted: layers with weights that compute on integers, but whose weights were not fitted by their config: they
            are constants of the converter's.
        outputs: name in the signature -> signal to noise in dB of an output of the file, against the float file, on a
            few calibration samples; of the outputs that hold real numbers.
    """

    model_name: str
    preset: str
    samples: int
    seed: int
    file_bytes: int
    float_file_bytes: int
    layers: tuple[LayerReport, ...]
    skipped: tuple[SkippedLayer, ...] = ()
    float_operators: tuple[FloatOperator, ...] = ()
    warnings: tuple[str, ...] = ()
    float_differences: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    pictures: tuple[BlockPicture, ...] = ()
    unfitted: tuple[SkippedLayer, ...] = ()
    outputs: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def change_of_size(self) -> str:
        """The quantized file beside the float one: ``"3.80x smaller"`` or ``"2.20x larger"``."""
        before, after = max(self.float_file_bytes, 1), max(self.file_bytes, 1)
        return f"{before / after:.2f}x smaller" if after <= before else f"{after / before:.2f}x larger"

    def render(self) -> str:
        """The report as a text table, a summary first."""
        from tfptq.report.table import render_report

        return render_report(self)

    def __str__(self) -> str:
        return self.render()

    def to_html(self) -> str:
        """The report as one HTML page that needs no other file and no network."""
        from tfptq.report.page import render_page

        return render_page(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON text; ``from_json`` gives an equal report back. Infinity becomes the text ``"inf"``."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: not JSON, or not a report.
        """
        try:
            return _restore(cls, json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"the report is not valid JSON: {error}") from error
        except (AttributeError, TypeError) as error:
            raise ValueError(f"the JSON is not a report of tfptq: {error}") from error


def _plain(value: Any) -> Any:
    """Replace what strict JSON lacks: numpy numbers become Python's, non-finite numbers become text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def _restore(kind: Any, value: Any) -> Any:
    """Build a value of the annotated type ``kind`` from plain JSON values."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = set(value.keys()) - set(hints)
        if unknown:
            raise TypeError(f"unknown fields {', '.join(sorted(unknown))}")
        return kind(**{name: _restore(hints[name], item) for name, item in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_restore(arguments[0], item) for item in value)
    if origin is dict:
        return {key: _restore(arguments[1], item) for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _restore(arguments[0], value)
    if kind is float:
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
