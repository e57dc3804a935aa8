"""Steps that keep what a network computes: on networks that amplify rounding they pass, and a fault leaves one out."""

import keras
import numpy as np
import pytest
from cancelling_networks import CANCELLING, difference_of_branches
from plain_config import plain_config

import tfptq
from tfptq import PerBlock
from tfptq.base.progress import Progress
from tfptq.pipeline.steps import convert
from tfptq.prepare import network

#: All steps, and nothing that takes long.
STEPS = plain_config(
    PerBlock(2, 2), "integer", 4, equalize=True, rotate=True, reorder=True, edge_bits=None, target="any"
)


def samples(model, count=32):
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype(np.float32)


@pytest.mark.parametrize("offset", [1e2, 1e5])
@pytest.mark.parametrize("build", CANCELLING)
def test_all_steps_pass_on_networks_that_cancel(build, offset):
    """A warning would be an error here."""
    keras.utils.set_random_seed(1)
    model = build(offset)
    prepared = network.prepare(model, samples(model), STEPS, 0, Progress(False))
    assert convert(prepared, STEPS, 0, Progress(False)).differences.keys() >= {"canonicalise", "equalize", "reorder"}
    assert not prepared.notes


def broken(model):
    changed = keras.models.clone_model(model)
    changed.set_weights(model.get_weights())
    kernel = changed.get_layer("narrow").kernel
    kernel.assign(kernel * 1.5)
    return changed


@pytest.mark.parametrize(
    "step, function, found",
    [
        ("equalize", "equalize_channels", broken),
        ("rotate", "rotate_linear_channels", broken),
        ("reorder", "reorder_channels", lambda model: network.ReorderedModel(broken(model), {}, {})),
    ],
)
def test_a_step_with_a_fault_is_left_out_with_a_warning(monkeypatch, step, function, found):
    monkeypatch.setattr(network, function, lambda model, *args, **kwargs: found(model))
    model = difference_of_branches(1.0)
    with pytest.warns(UserWarning, match=f"step '{step}' was left out.*models part at layer 'narrow'"):
        result = tfptq.quantize_keras_model(model, samples(model), STEPS, progress=False)
    (warning,) = (line for line in result.report.notes if "was left out" in line)
    assert f"'{step}'" in warning and step not in result.report.float_differences
    x = samples(model)
    assert result.report.outputs["output_0"] > 10 and np.isfinite(np.asarray(result.keras_model(x))).all()


def test_folding_is_no_choice(monkeypatch):
    monkeypatch.setattr(network, "canonicalise", lambda model, *args: broken(model))
    model = difference_of_branches(1.0)
    with pytest.raises(tfptq.FloatEqualityError, match="differs from 'cancelling'.* at layer 'narrow'"):
        tfptq.quantize_keras_model(model, samples(model), STEPS, progress=False)


def test_the_report_says_what_rounding_alone_does():
    config = STEPS.replace(rotate=False, reorder=False)
    model = difference_of_branches(1e6)
    warnings = tfptq.quantize_keras_model(model, samples(model), config, progress=False).report.notes
    (warning,) = (line for line in warnings if "rounding of float32 alone moves the outputs" in line)
    assert "subtract such values before the model" in warning
    model = difference_of_branches(10.0)
    warnings = tfptq.quantize_keras_model(model, samples(model), config, progress=False).report.notes
    assert not any("float32 alone" in line for line in warnings)
