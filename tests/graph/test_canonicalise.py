import keras
import numpy as np
import pytest
from graph_models import batch_for, conv_bn, inverted_residual_network, randomise, residual_network
from keras import layers

from tfptq.graph import canonicalise, check_float_equal
from tfptq.graph.read_graph import input_names


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def canonical_of(model, tolerance=2e-6):
    """Canonicalise, and check everything that always holds."""
    before = [weight.numpy() for weight in model.weights]
    canonical = canonicalise(model)
    check_float_equal(model, canonical, batch_for(model), tolerance)
    assert all(np.array_equal(old, new.numpy()) for old, new in zip(before, model.weights, strict=True))
    assert [tensor.name for tensor in canonical.inputs] == input_names(model) == input_names(canonical)
    assert not set(map(id, canonical.layers)) & set(map(id, model.layers))
    return canonical


@pytest.mark.parametrize("network", [residual_network, inverted_residual_network])
def test_whole_networks_lose_their_batch_normalization(network):
    canonical = canonical_of(network())
    assert not {"BatchNormalization", "Dropout"} & set(kinds(canonical))


def test_canonicalising_twice_changes_nothing():
    once = canonicalise(residual_network())
    twice = canonicalise(once)
    assert [layer.name for layer in once.layers] == [layer.name for layer in twice.layers]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(once.weights, twice.weights, strict=True))


def test_sequential_with_output_of_a_folded_batch_normalization():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3), layers.Dropout(0.5), layers.BatchNormalization()], name="tail"
    )
    canonical = canonical_of(randomise(model))
    assert kinds(canonical) == ["InputLayer", "Conv2D"]
    assert canonical.name == "tail"


def test_sequential_built_without_an_input_layer():
    model = keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Activation("relu")])
    model.build((None, 5))
    assert kinds(canonical_of(randomise(model))) == ["InputLayer", "Dense", "Activation"]


def test_shared_layer_stays_one_layer():
    first, second = keras.Input((6, 6, 2), name="first"), keras.Input((6, 6, 2), name="second")
    shared = layers.Conv2D(4, 3, name="shared")
    norm = layers.BatchNormalization()
    model = keras.Model([first, second], layers.Concatenate()([norm(shared(first)), shared(second)]))
    canonical = canonical_of(randomise(model))
    assert kinds(canonical).count("Conv2D") == 1 and "BatchNormalization" in kinds(canonical)


def test_nested_models_are_inlined_and_shared_ones_stay_shared():
    inner_input = keras.Input((8, 8, 3))
    stem = keras.Sequential([layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm")], name="stem")
    inner = keras.Model(inner_input, layers.ReLU()(stem(inner_input)), name="inner")
    inputs = {"b": keras.Input((8, 8, 3), name="b"), "a": keras.Input((8, 8, 3), name="a")}
    x = layers.Add()([inner(inputs["a"]), inner(inputs["b"], training=True)])
    x = layers.Conv2D(4, 1, name="conv")(x)
    model = keras.Model(inputs, {"z": x, "y": inputs["a"]})
    canonical = canonical_of(randomise(model))
    names = [layer.name for layer in canonical.layers]
    assert "conv" in names and "stem_conv" in names and kinds(canonical).count("Conv2D") == 2
    assert set(canonical.output) == {"y", "z"} and list(canonical.input) == list(model.input)
    # The convolution is called twice, and each time its BatchNormalization follows.
    assert "BatchNormalization" not in kinds(canonical)


def test_nested_model_with_several_inputs_given_by_name():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    inner = keras.Model([left, right], layers.Subtract()([layers.Dense(3)(left), layers.Dense(3)(right)]))
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    canonical_of(randomise(keras.Model([x, y], inner({"right": x, "left": y}))))


@pytest.mark.parametrize(("outer", "inner"), [("uint8", "float32"), ("int32", "float16"), ("float32", "int32")])
def test_nested_models_cast_what_they_are_called_on(outer, inner):
    """As Keras does: pixels in bytes in front of a backbone for float32, say."""
    backbone_input = keras.Input((4, 4, 3), dtype=inner)
    x = layers.Rescaling(1 / 127.5, -1.0)(backbone_input)
    backbone = keras.Model(backbone_input, layers.Conv2D(4, 3)(x), name="backbone")
    first, second = (keras.Input((4, 4, 3), dtype=outer, name=name) for name in ("first", "second"))
    model = keras.Model([first, second], layers.Subtract()([backbone(first), backbone(second)]))
    canonical = canonical_of(randomise(model), 1e-5)
    assert [tensor.dtype for tensor in canonical.inputs] == [outer, outer]
    operations = [type(operation).__name__ for operation in canonical.operations]
    assert operations.count("Cast") == 2 and operations.count("Conv2D") == 1


def test_nested_models_called_on_another_rank_are_refused():
    """Keras would add an axis."""
    inner = keras.Sequential([keras.Input((4, 1)), layers.Dense(3)], name="inner")
    inputs = keras.Input((4,), dtype="uint8")
    model = keras.Model(inputs, inner(inputs))
    with pytest.raises(ValueError, match=r"nested model 'inner' is called on tensors of the ranks \[2\] .* \[3\]"):
        canonicalise(model)


def test_keras_operations_survive():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.ops.add(x[:, ::2, 1::2], 0.5 * x[:, 1::2, ::2])
    x = keras.ops.concatenate([x, keras.ops.relu(-x)], axis=-1)
    first, second = keras.ops.split(x, 2, axis=-1)
    outputs = keras.ops.mean(keras.ops.maximum(first, second), axis=(1, 2))
    canonical_of(randomise(keras.Model(inputs, outputs)))


def test_model_outputs_may_be_inputs_and_may_repeat():
    inputs = keras.Input((4,), name="x")
    middle = layers.Dense(3)(inputs)
    end = layers.BatchNormalization()(middle)
    canonical = canonical_of(randomise(keras.Model(inputs, [inputs, end, middle, end, layers.Dropout(0.1)(inputs)])))
    assert "BatchNormalization" in kinds(canonical)  # The value before it is an output, too.


def test_lambda_and_custom_layers_are_copied():
    factor = np.float32(3.0)

    class Shift(layers.Layer):
        def __init__(self, by, **kwargs):
            super().__init__(**kwargs)
            self.by = by

        def build(self, shape):
            self.gain = self.add_weight(shape=(shape[-1],), name="gain")

        def call(self, x):
            return x * self.gain + self.by

        def get_config(self):
            return {**super().get_config(), "by": self.by}

    inputs = keras.Input((4,))
    x = layers.Lambda(lambda x: x * factor)(Shift(2.0)(layers.Dense(3)(inputs)))
    canonical_of(randomise(keras.Model(inputs, x)))


def test_attention_and_recurrent_layers_keep_their_weights():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(3))(layers.LayerNormalization()(x))
    canonical_of(randomise(keras.Model(inputs, layers.Dense(2)(x))))


def test_recurrent_layers_lose_their_dropout():
    inputs = keras.Input((5, 8))
    cells = [layers.LSTMCell(3, dropout=0.1), layers.GRUCell(3, recurrent_dropout=0.2)]
    x = layers.Bidirectional(layers.LSTM(3, dropout=0.1, return_sequences=True), name="both")(inputs)
    x = layers.RNN(cells, return_sequences=True, name="cells")(x)
    x = layers.Dense(2)(layers.GRU(3, recurrent_dropout=0.2, name="one")(x))
    model = randomise(keras.Model(inputs, x))
    canonical = canonical_of(model)
    layer = canonical.get_layer
    found = [layer("both").forward_layer, layer("both").backward_layer, *layer("cells").cell.cells, layer("one")]
    assert all(item.dropout == item.recurrent_dropout == 0.0 for item in found)
    assert model.get_layer("one").recurrent_dropout == 0.2


def test_dense_layers_come_out_of_time_distributed():
    inputs = keras.Input((5, 4, 3))
    head = layers.TimeDistributed(layers.Dense(2), name="head")
    x = layers.TimeDistributed(layers.TimeDistributed(layers.Dense(6, activation="relu")), name="twice")(inputs)
    x = layers.Add()([head(x), head(x * 2.0)])
    canonical = canonical_of(randomise(keras.Model(inputs, layers.TimeDistributed(layers.Flatten(), name="kept")(x))))
    kinds = {layer.name: type(layer) for layer in canonical.layers}
    assert kinds["head"] is kinds["twice"] is layers.Dense
    assert kinds["kept"] is layers.TimeDistributed
    masked = keras.Input((6,), dtype="int32")
    x = layers.TimeDistributed(layers.Dense(4))(layers.Embedding(9, 4, mask_zero=True)(masked))
    model = randomise(keras.Model(masked, layers.GRU(3)(x)))
    tokens = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 0, 0, 0]], np.int32)
    check_float_equal(model, canonicalise(model), tokens, 1e-6)


def test_up_sampling_by_repetition_becomes_resizing():
    inputs = keras.Input((5, 4, 3))
    shared = layers.UpSampling2D(2, name="shared")
    x = layers.Conv2D(4, 1)(layers.UpSampling2D((2, 3), name="nearest")(inputs))
    x = layers.UpSampling2D(2, interpolation="bilinear", name="bilinear")(x)
    canonical = canonical_of(randomise(keras.Model(inputs, [x, shared(shared(inputs))])))
    kinds = {layer.name: type(layer) for layer in canonical.layers}
    assert kinds["nearest"] is layers.Resizing
    assert kinds["bilinear"] is kinds["shared"] is layers.UpSampling2D
    open_size = keras.Input((None, None, 3))
    canonical = canonicalise(keras.Model(open_size, layers.UpSampling2D()(layers.Conv2D(2, 1)(open_size))))
    assert type(canonical.layers[-1]) is layers.UpSampling2D


def test_convolutions_and_dense_layers_get_a_bias():
    inputs = keras.Input((6, 6, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(layers.Conv2D(4, 3, use_bias=False)(inputs))
    x = layers.Conv2DTranspose(5, 3, use_bias=False)(x)
    dense = layers.Dense(5, use_bias=False)
    canonical = canonical_of(randomise(keras.Model(inputs, dense(dense(x)))))
    weighted = [layer for layer in canonical.layers if layer.weights]
    assert [layer.bias.shape[0] for layer in weighted] == [4, 8, 5, 5]
    assert not any(np.any(layer.bias.numpy()) for layer in weighted)


def test_embedding_masks_still_reach_the_recurrent_layer():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Dropout(0.2)(layers.Embedding(9, 4, mask_zero=True)(inputs))
    model = randomise(keras.Model(inputs, layers.GRU(3)(x)))
    tokens = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 0, 0, 0]], np.int32)
    check_float_equal(model, canonicalise(model), tokens, 1e-6)


def test_mixed_precision_becomes_float32():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(inputs)
    x = layers.Activation("relu", dtype="mixed_float16")(layers.BatchNormalization(dtype="mixed_float16")(x))
    model = randomise(keras.Model(inputs, layers.Dense(2, dtype="float64")(layers.Flatten(dtype="float64")(x))))
    canonical = canonical_of(model)
    assert {layer.compute_dtype for layer in canonical.layers} == {"float32"}
    assert kinds(canonical) == ["InputLayer", "Conv2D", "Activation", "Flatten", "Dense"]


def test_canonical_model_can_be_cloned_and_saved(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = conv_bn(inputs, 4)
    x = layers.SeparableConv2D(4, 3)(x[:, 1:] * 2.0)
    canonical = canonicalise(randomise(keras.Model(inputs, x)))

    def clone(layer):
        return layer.from_config(layer.get_config())

    cloned = keras.models.clone_model(canonical, clone_function=clone)
    cloned.set_weights(canonical.get_weights())
    check_float_equal(canonical, cloned, batch_for(canonical), 1e-7)
    canonical.save(tmp_path / "model.keras")
    check_float_equal(canonical, keras.models.load_model(tmp_path / "model.keras"), batch_for(canonical), 1e-7)


def test_initializers_that_cannot_be_made_again_do_not_matter():
    kernel = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, kernel_initializer=lambda *_, **__: kernel)(inputs))
    check_float_equal(model, canonicalise(model), batch_for(model), 1e-6)
