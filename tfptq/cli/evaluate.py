"""Measure a .tflite file on labelled samples, beside the float model: accuracy, agreement, signal to noise, latency.

    tfptq-evaluate net.tflite --data=test.npy --labels=test_labels.npy --model=net.keras
    tfptq-evaluate net.tflite --data=photos/ --preprocessing=tf --labels=labels.npy --json=evaluation.json

Data are as for calibration: a .npy array [samples, ...], a .npz file with one such array for each input under its name,
or a folder of images in the order of their paths. Labels are a .npy array in the order of the samples, or a .npz file
with one for each output under its name; without them, the file is compared with the float model alone.
"""

from collections.abc import Sequence

from absl import flags

from tfptq.base.files import check_writable, write_atomically
from tfptq.base.progress import Progress
from tfptq.base.quiet import quiet_import
from tfptq.cli import command_line
from tfptq.cli.calibration_files import PREPROCESSING, check_preprocessing, load_calibration_data, load_labels

FLAGS = command_line.new_flags()
flags.DEFINE_string("data", None, ".npy or .npz file, or folder of images", flag_values=FLAGS)
flags.DEFINE_string("labels", None, ".npy or .npz file", flag_values=FLAGS)
flags.DEFINE_string(
    "model", None, "the float model to compare with: .keras, .h5, or a float .tflite file", flag_values=FLAGS
)
flags.DEFINE_string(
    "metric",
    "accuracy",
    "accuracy, none, or a metric of Keras such as sparse_top_k_categorical_accuracy",
    flag_values=FLAGS,
)
flags.DEFINE_enum("preprocessing", None, list(PREPROCESSING), "for images, what the model expects", flag_values=FLAGS)
flags.DEFINE_string("json", None, "also write the results to this .json file", flag_values=FLAGS)
flags.DEFINE_float(
    "latency_seconds",
    1.0,
    "how long to time inferences on one thread; 0 leaves that out",
    lower_bound=0.0,
    flag_values=FLAGS,
)
command_line.define_custom_objects(FLAGS)
flags.DEFINE_boolean("progress", True, "show progress on a terminal", flag_values=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_evaluate, FLAGS, __doc__, argv)


def _evaluate(arguments: list[str]) -> None:
    path = command_line.one_path(arguments)
    command_line.require(FLAGS, "data")
    check_preprocessing(FLAGS.preprocessing, FLAGS.data)
    command_line.keep_apart(FLAGS, ("json",), ("data", "labels", "model"))
    if FLAGS.json:
        check_writable(FLAGS.json)
    labels = None if FLAGS.labels is None else load_labels(FLAGS.labels)
    with quiet_import():  # here, so that --help and wrong flags do not wait for TensorFlow
        from tfptq.evaluation.evaluate import evaluate_subject
        from tfptq.evaluation.files import subject_of

    command_line.import_custom_objects(FLAGS.custom_objects)
    with command_line.naming(path):
        subject = subject_of(path, FLAGS.model)
    found = evaluate_subject(
        subject,
        load_calibration_data(FLAGS.data, subject.specs, 0, 0, FLAGS.preprocessing),
        FLAGS.metric,
        labels=labels,
        latency_seconds=FLAGS.latency_seconds,
        steps=Progress(FLAGS.progress),
    )
    if FLAGS.json:
        write_atomically(FLAGS.json, found.to_json() + "\n")
    command_line.show(found.render())
