"""What the steps of a job hand on to each other, beside the kernels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tfptq.base.progress import Progress
from tfptq.config import Calibration, QuantizationConfig
from tfptq.core.affine import ActivationGrid
from tfptq.data.calibration import CalibrationData
from tfptq.fit.measure import measure
from tfptq.fit.measurements import Measurements
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelId
from tfptq.lowering.grid_groups import Range
from tfptq.lowering.islands import NO_ISLANDS, Islands
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import KernelPlan
from tfptq.lowering.tables import Table
from tfptq.prepare.network import FloatNetwork
from tfptq.tflite.layouts import Computes

#: Float file, data, how ranges are chosen, and ``advance`` of the progress -> measurements, as ``measure`` has them.
Measure = Callable[[FloatFile, CalibrationData, Calibration, Callable[[int], None]], Measurements]


@dataclass(frozen=True, eq=False)
class Job:
    """What all steps read.

    Attributes:
        config: config of the model.
        seed: seed of everything random.
        steps: the job's progress.
        network: float network, with the config of its layers.
        float_file: float ``.tflite`` of the network.
        data: calibration data, in full batches if the file wants a fixed number of samples.
        batch: its first batch.
        weights: float values ``[O, I, T]`` of the weights that can be quantized, in the file or not.
        plans: how each kernel is to be fitted and stored; without those that the config skips.
        tables: embedding tables that get codes in files of float activations.
        in_float: position of an operator that computes in float because the config wants it -> the reason.
        differences: step -> largest relative difference of an output that it made.
        widths: position of an operator -> width of its activations, where overrides give it one.
        stateful: name of a layer -> positions of its LSTM operators, for layers whose states last from call to call.
        measure: what runs a measuring pass. It may read more samples than ``data`` holds.
        measured_samples: number of these, or None where they are those of ``data``.
    """

    config: QuantizationConfig
    seed: int
    steps: Progress
    network: FloatNetwork
    float_file: FloatFile
    data: CalibrationData
    batch: dict[str, np.ndarray]
    weights: dict[KernelId, np.ndarray]
    plans: dict[KernelId, KernelPlan]
    tables: tuple[Table, ...]
    in_float: dict[int, str]
    differences: dict[str, float]
    widths: dict[int, int] = field(default_factory=dict)
    stateful: dict[str, tuple[int, ...]] = field(default_factory=dict)
    measure: Measure = measure
    measured_samples: int | None = None

    @property
    def known_samples(self) -> int | None:
        """Number of samples in a measuring pass, if it is known."""
        return self.data.known_samples if self.measured_samples is None else self.measured_samples

    @property
    def num_samples(self) -> int:
        """Number of samples in a measuring pass. Costs a pass when none was completed yet."""
        return self.data.num_samples if self.measured_samples is None else self.measured_samples

    @property
    def layers_in_float(self) -> list[str]:
        """Layers of the Keras model all of whose kernels the config leaves in float."""
        found: dict[str, bool] = {}
        for kernel in self.float_file.kernels:
            if kernel.id.layer is not None:
                alone = all(use.operator in self.in_float for use in kernel.uses)
                stored = kernel.id in self.plans and self.plans[kernel.id].layouts.computes is not Computes.INTEGER
                found[kernel.id.layer] = found.get(kernel.id.layer, True) and alone and not stored
        return [name for name, in_float in found.items() if in_float]

    @property
    def fits_narrow_activations(self) -> bool:
        """Whether weights are fitted to activations of less than 8 bits, which only the simulation has."""
        return self.config.activation_aware and self.config.activation_bits < 8


@dataclass(frozen=True, eq=False)
class Activations:
    """What is known of the activations.

    Attributes:
        measurements: what calibration measured.
        plan: operators on integers, and the grids of the file.
        simulated: tensor index -> grid in the Keras simulation.
        known: tensor index -> range that the plan has in place of the measured one.
        islands: what computes in float because 8 bits would lose too much there.
    """

    measurements: Measurements
    plan: IntegerPlan
    simulated: Mapping[int, ActivationGrid]
    known: Mapping[int, Range] = field(default_factory=dict)
    islands: Islands = NO_ISLANDS

    def rounded(self, config: QuantizationConfig) -> Mapping[int, ActivationGrid]:
        """Grids that weights are fitted on: none, unless the config wants them fitted to rounded activations."""
        return self.simulated if config.activation_aware and config.activation_bits <= 8 else {}
