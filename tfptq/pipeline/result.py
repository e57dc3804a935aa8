"""The end of every job: the file, the Keras simulation beside it, and the report."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfptq.base.files import write_atomically
from tfptq.base.warn import warn_caller
from tfptq.config import QuantizationConfig
from tfptq.evaluation.evaluate import evaluate
from tfptq.evaluation.result import Evaluation
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.lowering.tables import QuantizedTable, quantize_tables
from tfptq.pipeline import steps
from tfptq.pipeline.job import Activations, Job
from tfptq.report import QuantizationWarning, Report
from tfptq.report.build import build_report
from tfptq.report.notes import notes_on_rounding
from tfptq.report.outcome import Outcome

#: Samples that the per-layer output SNR of the report is measured on.
REPORT_SAMPLES = 32
#: Samples whose range is compared with that of training.
RANGE_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class QuantizationResult:
    """What ``quantize`` and ``export_simulation`` return.

    Attributes:
        tflite: bytes of the quantized ``.tflite`` file.
        keras_model: Keras simulation of the quantized model. It supports ``predict``, ``fit`` and ``save``, and
            ``export_simulation`` writes its file after training. None without a known Keras graph.
        report: how each layer was quantized, and how accurate it is.
        config: config that was used.
        float_tflite: bytes of the float file from which the quantized one was made, for comparison.
    """

    tflite: bytes
    keras_model: Any
    report: Report
    config: QuantizationConfig
    float_tflite: bytes

    def __repr__(self) -> str:
        """A line; the fields are the whole file and a long report."""
        return f"<QuantizationResult of {self.report.summary}>"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def save(self, path: str | os.PathLike) -> Path:
        """Write the ``.tflite`` file, all of it or nothing.

        Raises:
            OSError: the path cannot be written.
        """
        return write_atomically(path, self.tflite)

    def evaluate(
        self,
        samples: Any,
        labels: Any = None,
        model: Any = None,
        metric: Any = "accuracy",
        *,
        latency_seconds: float = 1.0,
        threads: int | None = None,
        progress: bool = True,
    ) -> Evaluation:
        """Evaluate the file on samples, with labels or without; see ``tfptq.evaluate``."""
        return evaluate(
            self,
            samples,
            model,
            metric,
            labels=labels,
            latency_seconds=latency_seconds,
            threads=threads,
            progress=progress,
        )


def finish(
    job: Job,
    activations: Activations,
    kernels: Sequence[QuantizedKernel],
    simulation: keras.Model | None,
    notes: list[str],
) -> QuantizationResult:
    """Write the file and the report.

    Args:
        job: the job.
        activations: grids of the file.
        kernels: fitted kernels, all of whose biases fit into their type.
        simulation: Keras model that computes what the file does, if there is one.
        notes: what single steps have to tell the user.
    """
    kernels = steps.with_layouts(kernels)
    tables = quantize_tables(job.tables, kernels)
    tflite = steps.write(job, activations.plan, kernels, tables)
    with job.steps.step("report"):
        outcome = Outcome(
            model=job.network.model,
            float_file=job.float_file,
            config=job.config,
            plan=activations.plan,
            weights=job.weights,
            kernels=kernels,
            tflite=tflite,
            num_samples=0 if job.data.made_up else job.num_samples,
            samples=_samples(job),
            batches=job.data.spread(RANGE_SAMPLES),
            statistics=activations.measurements.statistics,
            original=job.network.original,
            coarse_inputs=job.network.coarse_inputs,
            reordered={} if job.network.reordered is None else job.network.reordered.layers,
            tables=tables,
            notes=(*notes, *_notes(activations, tables), *notes_on_rounding(job.differences)),
        )
        report = build_report(outcome, seed=job.seed, float_differences=job.differences)
    report = replace(report, seconds=dict(job.steps.seconds))  # that of the report itself among them
    return QuantizationResult(tflite, simulation, report, job.config, job.float_file.data)


def warn_of_findings(result: QuantizationResult) -> None:
    """Warn of what the report found wrong with the file."""
    for finding in result.report.findings:
        warn_caller(str(finding), QuantizationWarning)


def _notes(activations: Activations, tables: Sequence[QuantizedTable]) -> list[str]:
    return [*filter(None, [activations.islands.note]), *(table.note for table in tables)]


def _samples(job: Job) -> dict[str, np.ndarray]:
    """The first calibration samples: of a file with a fixed batch, in full batches."""
    size = job.float_file.batch_size
    if size is None:
        return {name: values[:REPORT_SAMPLES] for name, values in job.batch.items()}
    batches = list(itertools.islice(job.data, -(-REPORT_SAMPLES // size)))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in job.batch}
