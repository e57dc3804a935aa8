"""What a report holds.

Signal-to-noise ratios are in decibels, ``10 log10(sum r^2 / sum (r - q)^2)`` for float values ``r`` and what
the quantized model has in their place ``q``: 6 dB more is half the error. Infinity means that both are equal.
"""

import dataclasses
from dataclasses import dataclass


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
        warnings: what the user should look at.
        float_differences: step that must not change the model -> largest difference of its outputs from those
            of the original, relative to the range of the output.
        seconds: step -> wall time.
        pictures: blocks of the layers that reordering of channels helped most.
        unfitted: layers whose weights compute on integers as constants of the converter, not fitted by their config.
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
