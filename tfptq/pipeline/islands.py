"""Islands in float for ``activations="auto"``: each region between kernels is tried on a few samples."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from tfptq.config import measured_operators
from tfptq.float_file.layout_requests import layout_request
from tfptq.lowering.islands import Islands, Judged, choose_islands, light_microseconds, reasons
from tfptq.lowering.plan import Ends, IntegerPlan
from tfptq.lowering.rounded_activations import with_rounded_activations
from tfptq.pipeline.job import Job
from tfptq.tflite.costs import load_costs
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner

#: Samples that noise is measured on; each region costs a run of the float file.
SAMPLES = 32


def find_islands(
    job: Job, plan: IntegerPlan, ends: Ends, plan_with: Callable[[Mapping[int, str]], IntegerPlan]
) -> Islands:
    """Choose the regions between kernels that compute in float.

    Args:
        job: a job whose config asks for them.
        plan: with all on integers that can be.
        ends: types of the inputs and outputs of the file.
        plan_with: positions of operators to leave in float, with the reason -> plan.
    """
    model, costs = job.float_file.model, measured_operators(job.config.target)
    kernels, noise = _kernel_microseconds(job), _Noise(job)
    if not noise.has_signal:
        return Islands(note="activations='auto': no islands in float; no floating point output varies, to judge by")

    def judge(in_float: Collection[int]) -> Judged:
        changed = plan_with(reasons(model, in_float))
        return Judged(noise.of(changed), kernels + light_microseconds(model, changed, costs, ends))

    return choose_islands(model, plan, judge, costs, job.config.latency_budget)


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
        self._powers = [_power(_varying(values)) for values in self._expected]

    @property
    def has_signal(self) -> bool:
        """Whether an output varies from sample to sample."""
        return any(self._powers)

    def of(self, plan: IntegerPlan) -> float:
        """Power of the change, relative to what varies from sample to sample, as a mean over the outputs that do."""
        found = self._outputs(with_rounded_activations(self._model, plan))
        pairs = zip(self._expected, found, self._powers, strict=True)
        return float(np.mean([_power(after - before) / power for before, after, power in pairs if power]))

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
