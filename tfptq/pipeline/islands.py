"""Islands in float for ``activations="auto"``: each region between kernels is tried on a few samples."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from tfptq.config import measured_operators
from tfptq.lowering.choose_layout import layout_request
from tfptq.lowering.islands import Islands, Judged, choose_islands, light_microseconds, reasons
from tfptq.lowering.plan import Ends, IntegerPlan
from tfptq.lowering.rounded_activations import with_rounded_activations
from tfptq.pipeline.job import Job
from tfptq.tflite.costs import load_costs
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner

#: Samples that noise is measured on; each region costs a run of the float file.
SAMPLES = 32


def find_islands(job: Job, ends: Ends, plan_with: Callable[[Mapping[int, str]], IntegerPlan]) -> Islands:
    """Choose the regions between kernels that compute in float.

    Args:
        job: a job whose config asks for them.
        ends: types of the inputs and outputs of the file.
        plan_with: positions of operators to leave in float, with the reason -> plan.
    """
    model, costs = job.float_file.model, measured_operators(job.config.target)
    kernels, noise = _kernel_microseconds(job), _Noise(job)

    def judge(in_float: Collection[int]) -> Judged:
        plan = plan_with(reasons(model, in_float))
        return Judged(noise.of(plan), kernels + light_microseconds(model, plan, costs, ends))

    return choose_islands(model, plan_with({}), judge, costs, job.config.latency_budget)


def _kernel_microseconds(job: Job) -> float:
    """Time of all operators with a kernel, in INT8."""
    costs = load_costs(job.config.target.costs)
    return sum(
        costs.microseconds(layout_request(job.network.config.for_layer(kernel.id.owner), job.float_file.model, use))
        for kernel in job.float_file.kernels
        for use in kernel.uses
    )


class _Noise:
    """What plans do to the outputs of a float file on a few samples."""

    def __init__(self, job: Job):
        self._model = job.float_file.model
        self._batches = [job.float_file.by_tensor_name(batch) for batch in job.data.spread(SAMPLES)]
        self._expected = self._outputs(self._model)

    def of(self, plan: IntegerPlan) -> float:
        """Power of the change, relative to what varies from sample to sample, as a mean over the outputs."""
        found = self._outputs(with_rounded_activations(self._model, plan))
        pairs = zip(self._expected, found, strict=True)
        shares = [_power(after - before) / power for before, after in pairs if (power := _power(_varying(before)))]
        return float(np.mean(shares)) if shares else 0.0

    def _outputs(self, model: TFLiteModel) -> list[np.ndarray]:
        """The floating point outputs, float64, samples behind each other."""
        wanted = [index for index in model.subgraph.outputs if model.is_float(index)]
        runner = TensorRunner(model, wanted)
        parts = [runner.values(batch) for batch in self._batches]
        return [np.concatenate([np.atleast_1d(part[index]) for part in parts]).astype(np.float64) for index in wanted]


def _power(values: np.ndarray) -> float:
    return float(np.square(values).sum())


def _varying(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0) if len(values) > 1 else values
