"""Float files are equalized, rotated and reordered as the Keras models that they were made of."""

import keras
import numpy as np
import pytest
from plain_config import plain_config
from residual_models import inverted_residual, residual, with_random_weights

import tfptq
from tfptq.base.progress import Progress
from tfptq.config import PerBlock, PerChannel
from tfptq.data.calibration import calibration_data_for
from tfptq.float_file.convert import convert_float
from tfptq.float_file.file_model import tflite_model
from tfptq.graph import canonicalise
from tfptq.layers import supports, weight_specs
from tfptq.prepare import network
from tfptq.prepare.equalize import equalize_channels
from tfptq.prepare.reorder import reorder_channels
from tfptq.prepare.rotate import rotate_linear_channels

STEPS = plain_config(
    PerBlock(2, 2), "integer", 4, equalize=True, rotate=True, reorder=True, edge_bits=None, target="any"
)
W4 = plain_config(PerChannel(), weight_bits=4, edge_bits=None)
W8 = W4.replace(weight_bits=8)


def samples(count=32):
    return np.random.default_rng(0).normal(size=(count, 8, 8, 3)).astype(np.float32)


def uneven(build):
    """The canonical network, some of whose channels have small values."""
    model = canonicalise(with_random_weights(build()))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            factors = np.where(np.arange(layer.filters) % 3, 1.0, 0.1).astype(np.float32)
            layer.set_weights([weight * factors for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module", params=[residual, inverted_residual], ids=lambda build: build.__name__)
def both(request):
    model = uneven(request.param)
    return model, tflite_model(convert_float(model))


def kernels(model):
    if isinstance(model, keras.Model):
        return {layer.name: weight_specs(layer)[0].values() for layer in model.layers if supports(layer)}
    return {kernel.id.owner: kernel.values for kernel in model.float_file.kernels}


def check_same(before, keras_way, file_way):
    before, ours, theirs = map(kernels, (before, file_way, keras_way))
    assert ours.keys() == theirs.keys()
    assert sum(not np.allclose(ours[name], before[name]) for name in ours) >= 3
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("config", [W4, W8], ids=["weights", "activations"])
def test_equalized_as_in_keras(both, config):
    model, of_file = both
    data = calibration_data_for(of_file.specs, samples())
    found = equalize_channels(of_file, config, data)
    check_same(model, equalize_channels(model, config, tfptq.calibration_data(model, samples())), found)
    for before, after in zip(of_file.outputs({"image": samples(4)}), found.outputs({"image": samples(4)}), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5 * np.ptp(before))


def test_reordered_as_in_keras(both):
    model, of_file = both
    ours, theirs = reorder_channels(of_file, STEPS), reorder_channels(model, STEPS)
    check_same(model, theirs.model, ours.model)
    assert ours.output_orders.keys() == theirs.output_orders.keys() and ours.layers.keys() == theirs.layers.keys()


def test_rotated_as_in_keras(both):
    model, of_file = both
    ours, theirs = rotate_linear_channels(of_file, W4), rotate_linear_channels(model, W4)
    assert (ours is of_file) == (theirs is model)
    if theirs is not model:
        check_same(model, theirs, ours)


def decibels(result):
    (found,) = result.report.outputs.values()
    return found


@pytest.mark.parametrize("config", [W4, W8], ids=["4 bits", "8 bits"])
def test_equalization_gains_as_much_as_in_keras(config):
    model = uneven(residual)
    of_file = convert_float(model)
    bare, prepared, in_keras = (
        tfptq.quantize(source, samples(), config.replace(equalize=equalize), progress=False)
        for source, equalize in ((of_file, False), (of_file, True), (model, True))
    )
    assert "equalize" in prepared.report.float_differences and prepared.keras_model is None
    assert decibels(prepared) > decibels(bare) + 3.0
    assert decibels(prepared) == pytest.approx(decibels(in_keras), abs=0.3)


def test_all_steps_are_in_the_report():
    report = tfptq.quantize(convert_float(uneven(residual)), samples(), STEPS, progress=False).report
    assert {"equalize", "reorder"} <= set(report.float_differences)
    assert max(report.float_differences.values()) < 1e-4
    assert all(layer.noise_after is not None for layer in report.layers) and report.pictures


def test_a_step_with_a_fault_is_left_out_with_a_warning(monkeypatch):
    def broken(model, *others):
        moved = model.float_file.with_values(
            {use: (1.5 * kernel.values, use.bias) for kernel in model.float_file.kernels[1:2] for use in kernel.uses}
        )
        return model.with_file(moved)

    monkeypatch.setattr(network, "equalize_channels", broken)
    with pytest.warns(UserWarning, match="step 'equalize' was left out"):
        prepared = network.prepare(convert_float(uneven(residual)), samples(), STEPS, 0, Progress(False))
    assert "equalize" not in prepared.differences and "reorder" in prepared.differences
