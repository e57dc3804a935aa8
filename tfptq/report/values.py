"""What a report holds.

Signal-to-noise ratios are in decibels, ``10 log10(sum r^2 / sum (r - q)^2)`` for float values ``r`` and what
the quantized model has in their place ``q``: 6 dB more is half the error. Infinity means that both are equal.
"""

import dataclasses
from dataclasses import dataclass

from tfptq.base.text import counted
from tfptq.report.units import format_decibels


class QuantizationWarning(UserWarning):
    """A quantization has a result that is likely bad; the message says why, and what to do."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a result.

    Attributes:
        kind: a word for programs, one of ``tfptq.report.diagnosis.KINDS``.
        problem: what is wrong, with the numbers that tell.
        advice: what to do about it.
    """

    kind: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.problem}. {self.advice}"


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
        output_snr_db: of the layer's output in the quantized model; None if not measured.
        noise_before: expected noise of the layer's blocks, relative to its weights, before reordering of channels
            (``tfptq.prepare.reorder``); None without reordering or blocks.
        noise_after: the same after reordering.
        rounding: how its codes were found, such as ``"nearest"`` or ``"attention"``.
        constant: its output is the same for all samples that were compared, so that ``output_snr_db`` tells nothing.
        operators: positions in the main subgraph of the file of the operators that write its outputs.
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
    constant: bool = False
    operators: tuple[int, ...] = ()

    @property
    def measured_db(self) -> float | None:
        """Signal to noise of the output; None where it was not measured, or tells nothing."""
        return None if self.constant else self.output_snr_db


@dataclass(frozen=True)
class Distribution:
    """Histogram of the weights of a layer, in steps of their scales, or of its output, with the grid they are on.

    Attributes:
        low: left edge of the first bin.
        high: right edge of the last one.
        counts: values in each bin, all of one width.
        grid_low: least value on the grid; those below are cut off.
        grid_high: largest value on the grid.
        step: distance between two points of the grid.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    grid_low: float
    grid_high: float
    step: float


@dataclass(frozen=True)
class LayerPicture:
    """What a layer's weights and its output look like on their grids; None where they are in float."""

    layer: str
    weights: Distribution | None
    output: Distribution | None


@dataclass(frozen=True)
class Trial:
    """One of several quantizations of the same model, for a plot of size against quality.

    Attributes:
        label: what tells it from the others, such as the name of a preset.
        quality: the larger the better; ``ReportValues.quality_name`` says what it is.
        chosen: whether the report is about this one.
    """

    label: str
    file_bytes: int
    quality: float
    chosen: bool = False


@dataclass(frozen=True)
class BlockPicture:
    """Largest magnitudes in the blocks of one layer, before and after reordering of channels.

    Rows are blocks of output channels, columns blocks of input channels; large layers have fewer pixels than blocks.
    """

    layer: str
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SkippedLayer:
    """A Keras layer with weights that its config was not applied to, and why."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class FloatOperator:
    """An operator of the file that computes in float, with the name of its first output, and why."""

    operator: str
    tensor: str
    reason: str


@dataclass(frozen=True)
class ReportValues:
    """Everything worth knowing about one quantization.

    Attributes:
        preset: name of the preset, and the fields that were changed; ``"custom"`` when there was none.
        samples: number of calibration samples.
        layers: the quantized layers, in the order of computation.
        skipped: layers with weights that compute in float.
        findings: what is wrong with the result, the gravest first.
        notes: what else to know about how the file was made.
        float_differences: step that must not change the model -> largest difference of its outputs from those
            of the original, relative to the range of the output.
        seconds: step -> wall time.
        pictures: blocks of the layers that reordering of channels helped most.
        unfitted: layers whose weights compute on integers as constants of the converter, not fitted by their config.
        outputs: name in the signature -> signal to noise in dB of an output of the file, against the float file, on a
            few calibration samples; of the outputs that hold real numbers.
        constant_outputs: those of them that are the same for all of these samples, so that their ratio tells nothing.
        columns: name of an output -> signal to noise of each of its columns (indexes of the last axis).
        distributions: weights and outputs of the layers with the lowest signal to noise.
        trials: other quantizations of the model, where there were some.
        quality_name: what the quality of ``trials`` is, such as ``"accuracy"``.
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
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    float_differences: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    pictures: tuple[BlockPicture, ...] = ()
    unfitted: tuple[SkippedLayer, ...] = ()
    outputs: dict[str, float] = dataclasses.field(default_factory=dict)
    constant_outputs: tuple[str, ...] = ()
    columns: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    distributions: tuple[LayerPicture, ...] = ()
    trials: tuple[Trial, ...] = ()
    quality_name: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(map(str, self.findings))

    @property
    def change_of_size(self) -> str:
        """The quantized file beside the float one: ``"3.80x smaller"`` or ``"2.20x larger"``."""
        before, after = max(self.float_file_bytes, 1), max(self.file_bytes, 1)
        return f"{before / after:.2f}x smaller" if after <= before else f"{after / before:.2f}x larger"

    @property
    def summary(self) -> str:
        """A line: what was quantized, to how many bytes, how exact the worst output is, and the number of warnings."""
        measured = [ratio for name, ratio in self.outputs.items() if name not in self.constant_outputs]
        parts = [
            f"{self.model_name!r}: {counted(len(self.layers), 'layer')} quantized with {self.preset}",
            f"{self.file_bytes:,} bytes, {self.change_of_size} than float",
            *([f"outputs {format_decibels(min(measured))} dB"] if measured else []),
            *(["constant outputs"] if self.constant_outputs else []),
            *([counted(len(self.findings), "warning")] if self.findings else []),
        ]
        return ", ".join(parts)
