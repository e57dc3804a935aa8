"""What a search proposes, and what came out of it."""

import json
import math
from dataclasses import dataclass
from typing import Any

from tfptq.config import QuantizationConfig
from tfptq.core.bit_assignment import packed_bytes
from tfptq.evaluation.result import Evaluation
from tfptq.tflite.inspect import inspect


@dataclass(frozen=True)
class Proposal:
    """What to try.

    Attributes:
        name: for tables; tells it from others.
        config: how to quantize.
        ratio: budget of bytes of mixed precision, or None of a preset.
        by: what chooses the bits of mixed precision, or None of a preset.
    """

    name: str
    config: QuantizationConfig
    ratio: float | None = None
    by: str | None = None


@dataclass(frozen=True)
class Trial:
    """A proposal that was tried.

    Attributes:
        proposal: what was tried.
        evaluation: the file on the evaluation samples.
        weight_bytes: bytes of the codes of its weights, as they lie in the file.
        packed_weight_bytes: the same, packed at their bits.
        seconds: time of quantizing and evaluating.
    """

    proposal: Proposal
    evaluation: Evaluation
    weight_bytes: int
    packed_weight_bytes: int
    seconds: float

    @classmethod
    def of(cls, proposal: Proposal, tflite: bytes, evaluation: Evaluation, seconds: float) -> "Trial":
        """The trial of a file."""
        weights = inspect(tflite).weights
        packed = sum(packed_bytes(math.prod(row.shape), row.bits) for row in weights)
        return cls(proposal, evaluation, sum(row.bytes for row in weights), packed, seconds)

    @property
    def by_agreement(self) -> bool:
        """Whether the float model stands in for labels."""
        return not self.evaluation.scores

    @property
    def drop(self) -> float:
        """What the file loses: of the metric, or without labels the share of other decisions than those of float."""
        drop = 1.0 - (self.evaluation.agreement or 0.0) if self.by_agreement else self.evaluation.drop
        return math.inf if drop is None or math.isnan(drop) else drop

    @property
    def error(self) -> float | None:
        """Standard error of the drop, None where it is not known.

        Of decisions it is at least that of one sample which decides otherwise: where none does, none may yet.
        """
        if self.by_agreement:
            return max(self.evaluation.agreement_error or 0.0, 1.0 / self.evaluation.samples)
        error = self.evaluation.drop_error
        decides = all(score.metric == "accuracy" for score in self.evaluation.scores)
        return max(error or 0.0, 1.0 / self.evaluation.samples) if decides else error

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.proposal.name,
            "config": self.proposal.config.to_dict(),
            "ratio": self.proposal.ratio,
            "by": self.proposal.by,
            "drop": self.drop,
            "error": self.error,
            "weight_bytes": self.weight_bytes,
            "packed_weight_bytes": self.packed_weight_bytes,
            "seconds": self.seconds,
            "evaluation": json.loads(self.evaluation.to_json()),
        }

    @classmethod
    def from_dict(cls, proposal: Proposal, values: dict[str, Any]) -> "Trial":
        """The trial of a proposal that ``to_dict`` wrote."""
        evaluation = Evaluation.from_json(json.dumps(values["evaluation"]))
        return cls(proposal, evaluation, values["weight_bytes"], values["packed_weight_bytes"], values["seconds"])
