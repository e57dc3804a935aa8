"""What users should know of the recurrent layers of a file."""

from collections.abc import Iterator, Sequence
from functools import partial

from tfptq.float_file.file_model import FileModel
from tfptq.float_file.recurrent_layers import RecurrentLayer, recurrent_layers
from tfptq.float_file.unroll import can_unroll
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.pipeline.job import Job
from tfptq.pipeline.steps import unroll_steps_of
from tfptq.tflite.layouts import Computes


def notes_on_recurrent(job: Job, kernels: Sequence[QuantizedKernel]) -> Iterator[str]:
    """Notes on LSTM operators (widths of their weights, their states, the simulation), and on loops.

    Args:
        job: the job.
        kernels: the fitted kernels.
    """
    recurrent = [kernel for kernel in kernels if not all(use.alone for use in kernel.uses)]
    owners = ", ".join(dict.fromkeys(kernel.id.owner for kernel in recurrent))
    if any(job.network.config.for_layer(kernel.id.owner).weight_bits < 8 for kernel in recurrent):
        yield f"8 bits and a scale for each kernel in {owners}: LSTM operators read no narrower weights"
    integer = any(kernel.plan.layouts.computes is Computes.INTEGER for kernel in recurrent)
    if integer and job.config.target.name == "cpu":
        yield (
            f"{owners} on integers: the kernel that LiteRT has on x86-64 takes several times as long as float; "
            "override(name, activations='dynamic') has the same bytes and is faster"
        )
    if any(kernel.id.layer for kernel in recurrent):
        yield f"keras_model computes {owners} in float"
    for name in job.stateful:
        yield (
            f"layer {name!r} keeps its state from call to call, as stateful=True asks: reset_all_variables() of the "
            "interpreter, Reset() in TFLite Micro, starts a new sequence. In calibration each sample was one"
        )
    for each in _loops(job):
        yield f"{each.path} is a loop in float, which TFLite Micro does not run: it {_reason(each)}"


def _loops(job: Job) -> Iterator[RecurrentLayer]:
    """The layers that are loops in the file."""
    file, model = job.float_file.model, job.network.model
    if isinstance(model, FileModel) or "WHILE" not in map(file.operator_name, file.operators):
        return
    operators = {kernel.id.layer for kernel in job.float_file.kernels if not kernel.uses[0].alone}
    for each in recurrent_layers(model, partial(unroll_steps_of, job.network.config)):
        if each.owner.name not in operators and not each.unrolls:
            yield each


def _reason(each: RecurrentLayer) -> str:
    """Why a layer is a loop, and what to do, worded to follow its name."""
    reason = each.obstacle or "reads a mask or a given state"
    if each.steps is None or not can_unroll(each.layer, each.steps, each.steps):
        return reason
    return f"{reason}; unroll_steps={each.steps} in the config makes ordinary operators of its steps"
