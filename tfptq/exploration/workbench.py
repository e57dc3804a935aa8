"""Where a search makes and judges its files."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfptq.base.progress import Progress
from tfptq.base.warn import warn_caller
from tfptq.data.calibration import calibration_data_for
from tfptq.data.checks import InputSpec, input_specs
from tfptq.data.labelled import LabelledData
from tfptq.evaluation.evaluate import evaluate_subject
from tfptq.evaluation.files import Subject, float_reference
from tfptq.evaluation.metrics import resolve_metrics
from tfptq.evaluation.result import Evaluation
from tfptq.evaluation.runner import file_ends
from tfptq.exploration.goal import Goal
from tfptq.exploration.strategy import RATIOS, mixed
from tfptq.exploration.trial import Proposal, Trial
from tfptq.exploration.trial_folder import TrialFolder
from tfptq.float_file.file_model import FileModel
from tfptq.pipeline.result import QuantizationResult
from tfptq.prepare.channel_networks import Model
from tfptq.prepare.network import distinct_ratios_of, open_model
from tfptq.quantization import quantize
from tfptq.report import QuantizationWarning
from tfptq.version import __version__

#: Time for the latency of one file.
LATENCY_SECONDS = 1.0
_QUIET = Progress(False)


@dataclass(frozen=True, eq=False)
class Workbench:
    """What all trials of a search have in common.

    Attributes:
        model: the Keras model, or the float file where no Keras graph is known.
        reference: its float file.
        calibration: samples to quantize with.
        evaluation: samples to judge with, and perhaps their labels.
        labels: labels beside them.
        metric: how to judge.
        seed: random seed.
        times: whether latency is measured.
        folder: keeps finished trials, or None.
    """

    model: Model
    reference: bytes
    calibration: Any
    evaluation: Any
    labels: Any
    metric: Any
    seed: int
    times: bool
    folder: TrialFolder | None = None

    @classmethod
    def of(
        cls, source: Any, calibration: Any, evaluation: Any, signature: str | None = None, **others: Any
    ) -> "Workbench":
        """A workbench without a folder, after a trial run of the float model on the evaluation samples.

        ``source`` and ``signature`` are what ``tfptq.quantize`` takes.

        Raises:
            ValueError: model, samples, labels or metric cannot be used.
        """
        model = open_model(source, calibration, signature)
        reference = model.float_file.data if isinstance(model, FileModel) else float_reference(model, evaluation)
        bench = cls(model, reference, calibration, evaluation, **others)
        found = bench._judged(bench.reference, 0.0)
        if not found.scores and found.agreement is None:
            raise ValueError(
                f"without labels, files are judged by decisions that are those of {model.name!r}, and its outputs have "
                "no classes; give labels and a metric, or as metric a function of the outputs alone"
            )
        for text in found.warnings:
            warn_caller(text)
        return bench

    def inputs(self) -> dict[str, str]:
        """What trials depend on beside their config, by name, as digests. Costs a pass over all samples."""
        ends = file_ends(self.reference)
        subject = self._subject(self.reference)
        names = [row.name for row in ends.outputs]
        metrics = resolve_metrics(self.metric, names)
        outputs, labels = (names, self.labels) if metrics else ((), None)
        named = metrics if isinstance(metrics, dict) else {"": metrics}
        return {
            "model": hashlib.sha256(self.reference).hexdigest(),
            "calibration dataset": calibration_data_for(self._specs, self.calibration).digest(),
            "evaluation dataset": LabelledData(subject.specs, outputs, self.evaluation, labels).digest(),
            "metric": ", ".join(f"{name} {it.name}".strip() for name, it in named.items() if it) or "none",
            "seed": str(self.seed),
            "version of tfptq": __version__,
        }

    def ladder(self, goal: Goal) -> tuple[float, ...]:
        """Ratios of mixed precision by sensitivity that lead to different widths, ascending."""
        config = mixed(goal, "sensitivity", RATIOS[0]).config
        return distinct_ratios_of(self.model, self.calibration, config, RATIOS, self.seed)

    def try_out(self, proposal: Proposal, advance: Callable[[int], None]) -> tuple[Trial, QuantizationResult]:
        """Make a file, judge it, and keep it; ``advance`` is called after each half of the work."""
        start = time.perf_counter()
        result = self.quantize(proposal)
        advance(1)
        evaluation = self._judged(result.tflite, LATENCY_SECONDS if self.times else 0.0)
        advance(1)
        trial = Trial.of(proposal, result.tflite, evaluation, time.perf_counter() - start)
        if self.folder is not None:
            self.folder.keep(trial, result.tflite)
        return trial, result

    def quantize(self, proposal: Proposal) -> QuantizationResult:
        """Make the file of a proposal; of a finished trial, its weights are there already.

        Without warnings: most files are not the one that is chosen.
        """
        weights: os.PathLike | None = None if self.folder is None else self.folder.weights(proposal)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantizationWarning)
            return quantize(
                self.model, self.calibration, proposal.config, seed=self.seed, progress=False, checkpoint_dir=weights
            )

    @property
    def _specs(self) -> tuple[InputSpec, ...]:
        return self.model.specs if isinstance(self.model, FileModel) else input_specs(self.model)

    def _subject(self, content: bytes) -> Subject:
        """A file, to be judged beside the float model."""
        model = None if isinstance(self.model, FileModel) else self.model
        return Subject(content, file_ends(content), model, self.reference)

    def _judged(self, content: bytes, latency_seconds: float) -> Evaluation:
        return evaluate_subject(
            self._subject(content),
            self.evaluation,
            self.metric,
            labels=self.labels,
            latency_seconds=latency_seconds,
            steps=_QUIET,
        )
