"""What a program sees of TensorFlow and LiteRT while it quantizes: nothing. Each case is a process of its own."""

import os
import subprocess
import sys

MODEL = """
def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="small")

samples = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)
"""

#: TensorFlow is loaded by the program, with all of its lines, before the mark.
TALKATIVE = f"""
import os, sys
import keras, numpy as np, tensorflow as tf
import tfptq
{MODEL}
def generate():
    for sample in samples:
        print("sample", file=sys.stderr, flush=True)
        yield sample

model = network()
dataset = tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec((8, 8, 3)))
list(dataset)  # TensorFlow has something to say of the first generator of a process
os.write(2, b"MARK")
for preset in ("w8a8_shift", "w4a8_channel"):
    result = tfptq.quantize_keras_model(model, dataset.batch(4).prefetch(2), preset)
tfptq.export_simulation(result.keras_model, samples)
from tfptq.npu import compare_with_stock
compare_with_stock(result.tflite, samples[:1])
"""

#: tfptq loads TensorFlow.
SILENT = f"""
from tfptq import quantize_keras_model
import keras, numpy as np
{MODEL}
network().save("net.keras")
quantize_keras_model("net.keras", samples)
"""

REFUSED = f"""
from tfptq import quantize_keras_model
import keras, numpy as np, tensorflow as tf
{MODEL}
class Odd(keras.layers.Layer):
    def call(self, inputs):
        return tf.raw_ops.Betainc(a=tf.sigmoid(inputs), b=tf.sigmoid(inputs), x=tf.sigmoid(inputs))

inputs = keras.Input((4,))
try:
    quantize_keras_model(keras.Model(inputs, Odd()(keras.layers.Dense(4)(inputs))), samples[:, 0, 0, :1].repeat(4, 1))
except ValueError as error:
    print(*error.__notes__)
"""


def run(folder, program, log=None):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TF_CPP_MIN_LOG_LEVEL", "TFPTQ_LOG")
    }
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"TFPTQ_LOG": log} if log else {})
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return done


def test_only_the_lines_of_the_user_are_seen(tmp_path):
    done = run(tmp_path, TALKATIVE, log="native.log")
    seen = done.stderr.partition("MARK")[2].splitlines()
    assert {*seen} == {"sample"} and len(seen) % 16 == 0 and done.stdout == ""
    log = (tmp_path / "native.log").read_text()
    assert "Reading SavedModel" in log and "XNNPACK" in log and "sample" not in log


def test_nothing_is_seen_where_tfptq_loads_tensorflow(tmp_path):
    done = run(tmp_path, SILENT)
    assert (done.stdout, done.stderr) == ("", "")


def test_an_error_has_the_words_of_the_converter(tmp_path):
    done = run(tmp_path, REFUSED)
    assert "'tf.Betainc' op is neither a custom op nor a flex op" in done.stdout and done.stderr == ""
    assert "Reading SavedModel" not in done.stdout and "Saved artifact" not in done.stdout
