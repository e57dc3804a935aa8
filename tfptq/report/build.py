"""Make the report of a quantization from what the pipeline knows at its end."""

from tfptq.core.blocks import BlockScales
from tfptq.core.decibels import signal_to_noise
from tfptq.float_file.kernel import KernelId
from tfptq.lowering.float_activations import reason_of_config
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.report.compare import Comparison, compare_with_float
from tfptq.report.diagnosis import diagnose
from tfptq.report.notes import notes_on
from tfptq.report.outcome import Evidence, Outcome
from tfptq.report.outputs import columns_db
from tfptq.report.pictures import block_pictures, distributions
from tfptq.report.report import Report
from tfptq.report.unquantized import unquantized_layers
from tfptq.report.values import FloatOperator, LayerReport

#: Outputs with more columns have none of their own in the report.
MOST_COLUMNS = 128


def build_report(outcome: Outcome, *, seed: int, float_differences: dict[str, float]) -> Report:
    """Describe a quantization.

    Args:
        outcome: what the pipeline knows.
        seed: seed that was used.
        float_differences: step -> largest relative difference from the float model.
    """
    comparison = Comparison({}, {})
    if outcome.num_samples:  # random samples would tell nothing
        comparison = compare_with_float(outcome.float_file, outcome.tflite, outcome.plan, outcome.samples)
    layers = tuple(_layer_report(outcome, kernel, comparison) for kernel in outcome.kernels)
    in_float, on_integers = unquantized_layers(outcome)
    by_config = reason_of_config(outcome.config)  # of a whole file, which is no news of an operator
    outputs = comparison.outputs
    constant = tuple(name for name, output in outputs.items() if outcome.samples_differ and not output.varies)
    return Report(
        model_name=outcome.model.name,
        preset=outcome.config.label,
        samples=outcome.num_samples,
        seed=seed,
        file_bytes=len(outcome.tflite),
        float_file_bytes=len(outcome.float_file.data),
        layers=layers,
        skipped=in_float,
        unfitted=on_integers,
        float_operators=tuple(FloatOperator(*entry) for entry in outcome.plan.float_operators if entry[2] != by_config),
        findings=diagnose(Evidence(outcome, comparison, layers)),
        notes=notes_on(outcome),
        float_differences=float_differences,
        seconds={},
        pictures=block_pictures(outcome.reordered),
        outputs={name: output.snr_db for name, output in outputs.items()},
        constant_outputs=constant,
        columns=_columns(comparison, constant),
        distributions=distributions(outcome, layers),
    )


def _columns(comparison: Comparison, constant: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """Name of an output with a few columns -> signal to noise of each."""
    return {
        name: tuple(round(float(ratio), 2) for ratio in columns_db(output))
        for name, output in comparison.outputs.items()
        if name not in constant and output.expected.ndim > 1 and 1 < output.expected.shape[-1] <= MOST_COLUMNS
    }


def granularity_name(scales: BlockScales) -> str:
    """Which weights share a scale, in a few words for tables: see ``LayerReport.granularity``."""
    if scales.is_shift_scaler:
        return "tensor + shifts"
    if scales.granularity != "block":
        return scales.granularity
    outputs, inputs = scales.block_shape
    return f"block {outputs}x{inputs} {scales.kind}"


def _layer_report(outcome: Outcome, kernel: QuantizedKernel, comparison: Comparison) -> LayerReport:
    first, values = kernel.uses[0], outcome.weights.get(kernel.id, kernel.values)
    bias_bytes = 0 if first.bias is None else 4 * len(values)
    compared = [comparison.layers[use.output] for use in kernel.uses if use.output in comparison.layers]
    reordered = outcome.reordered.get(kernel.id.owner)
    return LayerReport(
        name=kernel.id.label,
        type=_layer_type(outcome, kernel.id),
        granularity=granularity_name(kernel.weight.scales),
        bits=kernel.weight.bits,
        rounding=kernel.plan.rounding,
        layout=kernel.layout.name,
        scales=kernel.weight.scales.count,
        bytes_before=4 * values.size + bias_bytes,
        bytes_after=kernel.layout.stored_bytes(kernel.in_file(first), first.view) + bias_bytes,
        weight_snr_db=signal_to_noise(values, kernel.weight.dequantize()),
        output_snr_db=min((it.snr_db for it in compared), default=None),
        noise_before=None if reordered is None else reordered.noise_before,
        noise_after=None if reordered is None else reordered.noise_after,
        constant=outcome.samples_differ and bool(compared) and not any(it.varies for it in compared),
        operators=tuple(it.operator for it in compared),
    )


def _layer_type(outcome: Outcome, id: KernelId) -> str:
    return "kernel of the file" if id.layer is None else type(outcome.model.get_layer(id.layer)).__name__
