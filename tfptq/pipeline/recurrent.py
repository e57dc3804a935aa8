"""What users should know of the recurrent layers of a file."""

from collections.abc import Iterator, Sequence

from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.pipeline.job import Job


def notes_on_recurrent(job: Job, kernels: Sequence[QuantizedKernel]) -> Iterator[str]:
    """Notes on LSTM operators: widths of their weights, their states, and the simulation.

    Args:
        job: the job.
        kernels: the fitted kernels.
    """
    recurrent = [kernel for kernel in kernels if not all(use.alone for use in kernel.uses)]
    owners = ", ".join(dict.fromkeys(kernel.id.owner for kernel in recurrent))
    if any(job.network.config.for_layer(kernel.id.owner).weight_bits < 8 for kernel in recurrent):
        yield f"8 bits and a scale for each kernel in {owners}: LSTM operators read no narrower weights"
    if any(kernel.id.layer for kernel in recurrent):
        yield f"keras_model computes {owners} in float"
    for name in job.stateful:
        yield (
            f"layer {name!r} keeps its state from call to call, as stateful=True asks: reset_all_variables() of the "
            "interpreter, Reset() in TFLite Micro, starts a new sequence. In calibration each sample was one"
        )
