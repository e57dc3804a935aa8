"""The steps that choose the grids of activations: before kernels are fitted, and again once their codes are known.

Kernels are quantized for the operators that the first plan runs on integers. Later plans come from other ranges, which
may move light operators (a sum, a softmax) from integers to float or back, and with them the grids around; but no
operator with a kernel, which ``_replan`` asserts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.fit.measurements import Measurements
from tfptq.fit.order import ranges_for_kernels, with_bias_headroom
from tfptq.lowering.clipped_ranges import cut_ranges
from tfptq.lowering.float_fallback import inputs_to_scale_in_float
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.grids import ranges_of_tables
from tfptq.lowering.islands import NO_ISLANDS, Islands
from tfptq.lowering.plan import Ends, IntegerPlan, Wider, plan_integers
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.pipeline.islands import find_islands
from tfptq.pipeline.job import Activations, Job
from tfptq.pipeline.steps import quantized_kernels, with_layouts
from tfptq.simulation.assign import simulated_grids

#: Ranges that had to be widened make their readers' inputs coarser, so that others may have to be: layer after layer.
MOST_WIDENINGS = 100


def calibrate(job: Job) -> Activations:
    """Measure the float network, and choose the grids of its activations."""
    with job.steps.step("calibrate", total=job.known_samples) as advance:
        measurements = job.measure(job.float_file, job.data, job.config.calibration, advance)
        plan, islands = plan_with_islands(job, measurements)
        simulated = simulated_grids(job.float_file, measurements, plan, job.config)
        return Activations(measurements, plan, simulated, islands=islands)


def plan_with_islands(
    job: Job, measurements: Measurements, known: Mapping[int, Range] | None = None
) -> tuple[IntegerPlan, Islands]:
    """``plan_activations``, and the islands in float that it has for ``activations="auto"``."""
    ranges_at = _ranges_at(job, measurements, known)
    plan = _plan(job, measurements, ranges_at, {})
    if job.config.activations != "auto":
        return plan, NO_ISLANDS
    islands = find_islands(job, plan, _ends(job), lambda islands: _plan(job, measurements, ranges_at, islands))
    return _plan(job, measurements, ranges_at, islands.reasons), islands


def plan_activations(
    job: Job,
    measurements: Measurements,
    known: Mapping[int, Range] | None = None,
    islands: Islands = NO_ISLANDS,
) -> IntegerPlan:
    """Decide which operators run on integers, and on which grids.

    Args:
        job: the job.
        measurements: what calibration measured.
        known: tensor index -> range, in place of the measured one.
        islands: what computes in float.
    """
    return _plan(job, measurements, _ranges_at(job, measurements, known), islands.reasons)


def _ranges_at(job: Job, measurements: Measurements, known: Mapping[int, Range] | None) -> dict[int, dict[int, Range]]:
    """Width of activations -> range of each tensor."""
    model = job.float_file.model
    tables = ranges_of_tables(model)
    ranges_at: dict[int, dict[int, Range]] = {}
    for width in {job.config.device_activation_bits, *job.widths.values()}:
        measured = measurements.ranges(job.config.calibration, width)
        ranges_at[width] = {**measured, **tables, **cut_ranges(model, measured), **(known or {})}
    return ranges_at


def _plan(
    job: Job,
    measurements: Measurements,
    ranges_at: Mapping[int, Mapping[int, Range]],
    islands: Mapping[int, str],
) -> IntegerPlan:
    bits, model, ends = job.config.device_activation_bits, job.float_file.model, _ends(job)
    ranges, in_float = ranges_at[bits], {**islands, **job.in_float}
    if ends.float_inputs:
        in_float = {**inputs_to_scale_in_float(model, ranges), **in_float}
    return plan_integers(model, ranges, bits, in_float, measurements.clipped, ends, Wider(job.widths, ranges_at))


def _ends(job: Job) -> Ends:
    return Ends(*(kind == "float32" for kind in job.config.interface_types))


def calibrate_again(job: Job, activations: Activations, kernels: Sequence[QuantizedKernel]) -> Activations:
    """Measure the network with its quantized weights: coarse ones move the activations."""
    if all(kernel.weight.bits >= 8 for kernel in kernels) or not activations.plan.operators:
        return activations
    with job.steps.step("calibrate again", total=job.known_samples) as advance:
        settled = with_layouts(kernels)
        values = {use: kernel.stored_values(use) for kernel in settled for use in kernel.uses}
        float_file = job.float_file.with_values(values)
        measurements = job.measure(float_file, job.data, job.config.calibration, advance)
        plan, simulated = _replan(job, measurements, kernels, activations), activations.simulated
        if not job.fits_narrow_activations:  # else weights were fitted to the grids as they are
            simulated = simulated_grids(job.float_file, measurements, plan, job.config)
    return replace(activations, measurements=measurements, plan=plan, simulated=simulated)


def with_headroom(
    job: Job, activations: Activations, kernels: Sequence[QuantizedKernel]
) -> tuple[Activations, tuple[QuantizedKernel, ...]]:
    """Enlarge scales under which the int32 bias of some kernel would overflow, and ranges that runtimes refuse.

    Raises:
        ValueError: the range of a result widens that of its own kernel's input, and so on.
    """
    wider: dict[int, Range] = {}
    for _ in range(MOST_WIDENINGS):
        kernels = tuple(with_bias_headroom(kernel, _read_by(kernel, activations.plan)) for kernel in kernels)
        wider = ranges_for_kernels(kernels, activations.plan)
        known = {**activations.known, **wider}
        plan = _replan(job, activations.measurements, kernels, activations, known) if wider else activations.plan
        if plan.grids == activations.plan.grids:
            return activations, kernels
        activations = replace(activations, plan=plan, simulated=_simulated_with(activations, plan), known=known)
    named = {kernel.id.owner for kernel in kernels if any(use.output in wider for use in kernel.uses)}
    raise ValueError(
        f"weights are too large for 8-bit activations in {', '.join(map(repr, sorted(named)))}: one step of the input "
        "is more than the whole result; leave the layer in float with skip=True by an override"
    )


def _read_by(kernel: QuantizedKernel, plan: IntegerPlan) -> Mapping[int, ActivationGrid]:
    """The grids of activations, as the operators with a kernel read them."""
    return plan.grids_for(use.operator for use in kernel.uses)


def _replan(
    job: Job,
    measurements: Measurements,
    kernels: Sequence[QuantizedKernel],
    activations: Activations,
    known: Mapping[int, Range] | None = None,
) -> IntegerPlan:
    """``plan_activations``, once kernels are quantized for the operators of an earlier plan.

    Raises:
        RuntimeError: the plan wants codes of other kernels, or for other uses of them. It never should.
    """
    plan = plan_activations(job, measurements, known, activations.islands)
    there = {use.operator: kernel.id.label for kernel in kernels for use in kernel.uses}
    wanted = {use.operator: kernel.id.label for kernel in quantized_kernels(job, plan) for use in kernel.uses}
    if there != wanted:
        differing = sorted({label for _, label in there.items() ^ wanted.items()})
        raise RuntimeError(
            f"internal error: after kernels were quantized, the plan of the file is another one for "
            f"{', '.join(map(repr, differing))}: on integers without codes, or in float with codes. Please report it "
            "with the model; leaving the layer in float with skip=True by an override avoids it"
        )
    return plan


def _simulated_with(activations: Activations, plan: IntegerPlan) -> dict[int, ActivationGrid]:
    """The grids of the simulation, where those of the file change: of its own bits, which may be fewer."""
    before, after = activations.plan.grids, plan.grids
    changed = {index for index in after if after[index] != before.get(index)}
    return {
        index: activation_grid(*after[index].real_range, grid.bits) if index in changed else grid
        for index, grid in activations.simulated.items()
    }
