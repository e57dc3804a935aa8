"""Trials that nothing was quantized for."""

from plain_config import plain_config

from tfptq.evaluation.fidelity import Fidelity
from tfptq.evaluation.latency import Latency
from tfptq.evaluation.metrics import Score
from tfptq.evaluation.result import Evaluation
from tfptq.exploration.trial import Proposal, Trial


def evaluation(size=1000, drop=0.0, error=0.004, ratio=0.5, metric="accuracy", samples=500):
    scores = () if metric is None else (Score(metric, "a", 0.9 - drop, 0.9, error),)
    fidelities = (Fidelity("a", 20.0, 1.0 - drop if metric is None else 0.98, error),)
    return Evaluation(samples, size, 4000, scores, fidelities, Latency(ratio, 1.0, 9))


def trial(name="w8a8_shift", codes=900, packed=None, proposal=None, **found):
    proposal = proposal or Proposal(name, plain_config())
    return Trial(proposal, evaluation(**found), codes, codes if packed is None else packed, 3.0)
