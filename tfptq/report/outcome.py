"""What the report and its diagnosis are made from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.core.ranges import TensorStatistics
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import KernelId
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.lowering.tables import QuantizedTable
from tfptq.prepare.reorder import ReorderedLayer
from tfptq.report.compare import Comparison
from tfptq.report.values import LayerReport

#: Input name -> samples.
Samples = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the pipeline knows at its end.

    Attributes:
        model: canonical float Keras model.
        float_file: float ``.tflite``.
        config: config that was used.
        plan: operators on integers and on floats.
        weights: float values ``[O, I, T]`` of the layers' weights, in the file or not.
        kernels: the quantized kernels.
        tflite: the quantized file.
        num_samples: number of calibration samples; 0 where random ones stand in for them.
        samples: a few of them.
        batches: more of them, spread over all; can be read any number of times.
        statistics: tensor index in the float file -> what calibration saw of it.
        original: the model as the user gave it; None where a simulation was exported.
        coarse_inputs: inputs whose channels differ too much in size for the integers that they are read as.
        reordered: layer -> what reordering of channels did to it; empty without reordering.
        tables: the quantized embedding tables.
        notes: what single steps have to tell the user.
    """

    model: keras.Model
    float_file: FloatFile
    config: QuantizationConfig
    plan: IntegerPlan
    weights: Mapping[KernelId, np.ndarray]
    kernels: Sequence[QuantizedKernel]
    tflite: bytes
    num_samples: int
    samples: Samples
    batches: Iterable[Samples] = ()
    statistics: Mapping[int, TensorStatistics] = field(default_factory=dict)
    original: keras.Model | None = None
    coarse_inputs: tuple[str, ...] = ()
    reordered: Mapping[str, ReorderedLayer] = field(default_factory=dict)
    tables: tuple[QuantizedTable, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def written(self) -> set[KernelId]:
        """What the quantized kernels go by."""
        return {kernel.id for kernel in self.kernels}

    @cached_property
    def samples_differ(self) -> bool:
        """Whether there are two among the few samples that are not the same."""
        return any((values != values[:1]).any() for values in self.samples.values())


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a diagnosis judges.

    Attributes:
        outcome: what the pipeline knows.
        comparison: the file beside the float one.
        layers: the quantized layers of the report.
    """

    outcome: Outcome
    comparison: Comparison
    layers: tuple[LayerReport, ...]
