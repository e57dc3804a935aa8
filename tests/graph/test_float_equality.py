import keras
import numpy as np
import pytest
from cancelling_networks import difference_of_branches, sums_of_many_products
from graph_models import batch_for, inverted_residual_network, randomise, residual_network
from keras import layers

from tfptq.graph import FloatEqualityError, canonicalise, check_float_equal, largest_difference
from tfptq.graph.float_equality import relative_difference, rounding_noise, tolerances
from tfptq.graph.simplify import IDENTITIES


def test_equal_models_differ_by_rounding_only():
    model = residual_network()
    differences = check_float_equal(model, canonicalise(model), batch_for(model))
    assert list(differences) == ["logits"] and differences["logits"] < 1e-6


def test_differences_are_relative_to_the_range_of_the_output():
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, inputs * 100.0)
    other = keras.Model(inputs, inputs * 100.0 + 1.0)
    batch = {"x": np.array([[0.0, 1.0]], np.float32)}
    assert list(largest_difference(model, other, batch).values()) == pytest.approx(
        [0.01 - 8 * np.finfo(np.float32).eps]
    )


@pytest.mark.parametrize("network", [residual_network, inverted_residual_network])
def test_the_layer_where_models_part_is_named(network):
    model = network()
    canonical = canonicalise(model)
    layer = [member for member in canonical.layers if isinstance(member, layers.Conv2D)][2]
    layer.kernel.assign(layer.kernel * 1.1)
    with pytest.raises(FloatEqualityError, match=f"the models part at layer '{layer.name}'. Typical causes: "):
        check_float_equal(model, canonical, batch_for(model))


def test_nan_is_a_difference():
    model = residual_network()
    canonical = canonicalise(model)
    canonical.get_layer("logits").bias.assign(np.full(5, np.nan))
    with pytest.raises(FloatEqualityError, match="logits"):
        check_float_equal(model, canonical, batch_for(model))


def test_a_model_whose_own_outputs_are_not_finite():
    """The layer is named where it begins, and so are the outputs that are reached."""
    inputs = keras.Input((4, 4, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="stem")(inputs))
    outputs = [layers.Dense(2, name="head")(layers.Flatten()(x)), layers.ReLU(name="fine")(inputs)]
    model = keras.Model(inputs, outputs, name="net")
    model.get_layer("norm").moving_variance.assign([1.0, -1.0, 1.0, 1.0])
    message = (
        "^6 of 6 values in the output 'head' of the model 'net' are NaN or infinite.*"
        r"first layer whose output is not finite is 'norm' \(BatchNormalization\).*negative moving_variance"
    )
    with pytest.raises(ValueError, match=message) as caught:
        check_float_equal(model, model, batch_for(model))
    assert not isinstance(caught.value, FloatEqualityError)


def test_weights_that_overflow():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="second")(layers.Dense(3, name="first")(inputs)))
    model.get_layer("first").kernel.assign(np.full((4, 3), 3e38, np.float32))
    with pytest.raises(ValueError, match=r"is not finite is 'first' \(Dense\)"):
        check_float_equal(model, canonicalise(model), np.full((2, 4), 9.0, np.float32))


def test_other_output_shapes_are_refused():
    inputs = keras.Input((2,))
    pair = [keras.Model(inputs, layers.Dense(size)(inputs)) for size in (2, 3)]
    with pytest.raises(ValueError, match="different shapes"):
        largest_difference(*pair, batch_for(pair[0]))


@pytest.mark.parametrize("kind", sorted(IDENTITIES, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_layers_taken_for_identities_are(kind):
    arguments = {
        "ActivityRegularization": (0.1,),
        "Identity": (),
        "RandomFlip": (),
        "RandomColorJitter": ((0.0, 255.0), 0.2),
        "RandomTranslation": (0.1, 0.1),
        "RandomPosterization": (4,),
        "RandomErasing": (),
        "RandomGaussianBlur": (),
        "RandomElasticTransform": (),
    }.get(kind.__name__, (0.2,))
    rank = 3 if kind.__name__.endswith("1D") else 5 if kind.__name__.endswith("3D") else 4
    values = np.random.default_rng(0).uniform(-100.0, 400.0, (2, *[3] * (rank - 1))).astype(np.float32)
    assert np.array_equal(np.asarray(kind(*arguments)(values, training=False)), values)


def test_sequential_reference_and_plain_arrays():
    model = randomise(keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()]))
    check_float_equal(model, canonicalise(model), np.ones((2, 3), np.float32), 1e-6)


def test_a_network_that_amplifies_rounding_is_not_blamed_for_it():
    inputs = keras.Input((8,), name="x")
    doubled = inputs * 1.0
    for _ in range(12):
        doubled = keras.ops.sin(doubled * 3.0)  # chaotic: a rounding of the input grows by 3 in every step
    model = keras.Model(inputs, doubled, name="chaos")
    batch = {"x": np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)}
    moved = keras.Model(inputs, model(inputs * np.float32(1.0 + 2.0**-23)))
    wrong = keras.Model(inputs, model(inputs * np.float32(1.0 + 2.0**-17)))
    difference = max(largest_difference(model, moved, batch).values())
    assert difference > 3e-4  # beyond the tolerance
    assert max(check_float_equal(model, moved, batch, 1e-4).values()) == difference
    with pytest.raises(FloatEqualityError, match=r"tolerance 0\.00"):
        check_float_equal(model, wrong, batch, 1e-4)


def test_noise_of_one_output_excuses_no_other():
    model = difference_of_branches(1e5)
    both = keras.Model(model.input, [model.output, layers.Dense(2, name="sound")(model.input)], name="both")
    canonical = canonicalise(both)
    canonical.get_layer("sound").kernel.assign(canonical.get_layer("sound").kernel * 1.001)
    with pytest.raises(FloatEqualityError, match=r"'both' in 'sound' by 0.000\d+ \(tolerance 0.0001\), relative"):
        check_float_equal(both, canonical, batch_for(both, 8))


def test_steps_of_float32_are_no_difference():
    """A pressure in Pa: float32 has steps of 0.008 there, more than 1e-4 of what the values range over."""
    values = np.float32(101325.0) + np.linspace(-25.0, 25.0, 9, dtype=np.float32)
    assert relative_difference(values, np.nextafter(values, np.float32(np.inf))) == 0.0
    assert relative_difference(values, values + np.float32(0.5)) > 1e-3
    assert np.isnan(relative_difference(values, np.full_like(values, np.nan)))


def test_sums_of_many_products_may_differ_by_more():
    """LiteRT moved the outputs by 8 to 11 times the noise that is measured."""
    model, x = sums_of_many_products()
    (noise,) = rounding_noise(model, x)
    (limit,) = tolerances(model, x, [1.0])
    assert limit == pytest.approx(2 * np.sqrt(4096) * noise, rel=0.5)  # the noise is drawn anew
    few, x = sums_of_many_products(products=4)
    (limit,) = tolerances(few, x, [1.0])
    assert limit == pytest.approx(max(1e-4, 8 * rounding_noise(few, x)[0]), rel=0.5)


def test_a_changed_kernel_is_no_rounding_of_many_products():
    model, x = sums_of_many_products()
    changed = keras.models.clone_model(model)
    changed.set_weights(model.get_weights())
    kernel = changed.layers[-1].kernel
    kernel.assign(kernel * np.float32([1.5, 1, 1, 1]))
    check_float_equal(model, model, x)
    with pytest.raises(FloatEqualityError):
        check_float_equal(model, changed, x)
