"""Sums over batches against what ``tfptq.evaluation`` says of all samples at once."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfptq
from tfptq.distributed.evaluation_sums import evaluation_sums
from tfptq.evaluation.fidelity import fidelity
from tfptq.evaluation.metrics import assigned, resolve_metric, scores


def distances(labels, outputs):
    return np.abs(outputs - labels[:, None]).mean(axis=1)


def arrays(rng, kind, samples):
    """Labels, outputs of a file and of a float model."""
    if kind == "classes":
        expected = rng.normal(size=(samples, 4)).astype(np.float32)
        return rng.integers(0, 4, samples), expected + rng.normal(0, 0.5, expected.shape).astype(np.float32), expected
    expected = rng.normal(0.3, 0.5, (samples, 1)).astype(np.float32)
    if kind == "probabilities":
        expected = np.clip(expected, 0, 1)
    found = expected + rng.normal(0, 0.2, expected.shape).astype(np.float32)
    return rng.integers(0, 2, samples), np.clip(found, 0, 1) if kind == "probabilities" else found, expected


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["classes", "probabilities", "logits"]),
    metric=st.sampled_from(["accuracy", distances]),
    with_model=st.booleans(),
    cuts=st.sets(st.integers(1, 29), max_size=6),
)
def test_sums_are_what_all_samples_give(seed, kind, metric, with_model, cuts):
    labels, found, expected = arrays(np.random.default_rng(seed), kind, 30)
    metric = resolve_metric(metric)
    parts = zip(*(np.split(values, sorted(cuts)) for values in (labels, found, expected)), strict=True)
    total = reduce(
        add, (evaluation_sums(metric, {"y": y}, {"y": f}, {"y": e} if with_model else {}) for y, f, e in parts)
    )
    model = {"y": expected} if with_model else {}
    (wanted,) = scores(metric, {"y": labels}, {"y": found}, model)
    (score,) = total.results(assigned(metric, ["y"], ["y"]))
    assert (score.metric, score.output) == (wanted.metric, wanted.output)
    for one, another in ((score.value, wanted.value), (score.float_value, wanted.float_value)):
        assert one == (None if another is None else pytest.approx(another))
    assert score.drop_error == (None if wanted.drop_error is None else pytest.approx(wanted.drop_error, abs=1e-7))
    assert total.samples == 30
    close = total.outputs["y"].fidelity("y")
    if not with_model:
        assert close is None
        return
    exact = fidelity("y", expected, found)
    assert close.snr_db == pytest.approx(exact.snr_db)
    assert close.agreement == (None if exact.agreement is None else pytest.approx(exact.agreement))
    if exact.agreement_error is not None:
        assert close.agreement_error == pytest.approx(exact.agreement_error, abs=1e-9)


def test_a_batch_with_labels_and_one_without_do_not_add_up():
    labels, found, _ = arrays(np.random.default_rng(0), "classes", 4)
    metric = resolve_metric("accuracy")
    with_labels, without = (evaluation_sums(metric, given, {"y": found}, {}) for given in ({"y": labels}, {}))
    with pytest.raises(tfptq.DataError, match="others have none"):
        with_labels + without
