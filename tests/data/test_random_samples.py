import keras
import numpy as np

from tfptq.data.calibration import calibration_data, random_data
from tfptq.data.checks import input_specs


def test_random_samples_stand_in_for_none():
    inputs = [keras.Input((4, None), name="x"), keras.Input((6,), name="tokens", dtype="int32")]
    table = keras.layers.Embedding(2, 3)(inputs[1])
    model = keras.Model(inputs, [keras.layers.GlobalAveragePooling1D()(inputs[0]), table])
    data = random_data(input_specs(model))
    (batch,) = data
    assert data.made_up and data.in_full_batches(8).made_up
    assert batch["x"].dtype == np.float32 and batch["x"].shape == (4, 4, 32)
    assert 0.0 <= batch["x"].min() < batch["x"].max() < 1.0
    assert batch["tokens"].dtype == np.int32 and set(np.unique(batch["tokens"])) == {0, 1}
    np.testing.assert_array_equal(batch["x"], next(iter(random_data(input_specs(model))))["x"])
    assert not calibration_data(model, batch).made_up
