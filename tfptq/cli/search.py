"""Search the smallest, or fastest, .tflite file of a model that loses no more than is allowed.

    tfptq-search --model=net.keras --calibration_data=samples.npy --evaluation_data=test.npy
        --evaluation_labels=test_labels.npy --max_drop=0.01 --output=net.tflite --plot=pareto.png

Data are as for tfptq-keras-to-tflite, labels as for tfptq-evaluate; the evaluation data should be other samples than
the calibration data. Without labels, decisions other than those of the float model count as lost. With
--checkpoint_dir, the same command goes on after an interruption. The table of all trials goes to standard output; the
exit code is 1 where no file is within the drop, and the one that loses least is written.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfptq.base.files import check_writable, write_atomically
from tfptq.base.quiet import quiet_import
from tfptq.cli import command_line
from tfptq.cli.calibration_files import PREPROCESSING, check_preprocessing, load_calibration_data, load_labels
from tfptq.cli.command_line import UsageError
from tfptq.config import TARGETS
from tfptq.report import QuantizationWarning

FLAGS = command_line.new_flags()
_MODEL_HELP = "the trained model: .keras, .h5, SavedModel, float .tflite"
flags.DEFINE_string("model", None, _MODEL_HELP, flag_values=FLAGS)
flags.DEFINE_string("signature", None, "of a SavedModel or .tflite file; the first by default", flag_values=FLAGS)
flags.DEFINE_string("calibration_data", None, ".npy or .npz file, or folder of images", flag_values=FLAGS)
flags.DEFINE_string("evaluation_data", None, "the same, to judge files on", flag_values=FLAGS)
flags.DEFINE_string("evaluation_labels", None, "their labels, a .npy or .npz file", flag_values=FLAGS)
flags.DEFINE_string("output", None, "the .tflite file to write", flag_values=FLAGS)
flags.DEFINE_float(
    "max_drop",
    0.01,
    "what may be lost, in the unit of the metric, one standard error included",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_enum("objective", "bytes", ["bytes", "latency"], "what shall be least", flag_values=FLAGS)
flags.DEFINE_enum("target", "cpu", list(TARGETS), "kind of device", flag_values=FLAGS)
flags.DEFINE_string("metric", "accuracy", "accuracy, none, or the name of a metric of Keras", flag_values=FLAGS)
flags.DEFINE_integer("most_trials", 9, "files that are made, at most", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("budget_seconds", None, "no trial starts later", lower_bound=0.0, flag_values=FLAGS)
flags.DEFINE_string(
    "checkpoint_dir", None, "folder for finished trials; the same command goes on from there", flag_values=FLAGS
)
flags.DEFINE_string("plot", None, "also draw all trials, to a .png, .svg or .pdf file", flag_values=FLAGS)
flags.DEFINE_string("json", None, "also write all trials, to this .json file", flag_values=FLAGS)
flags.DEFINE_enum("preprocessing", None, list(PREPROCESSING), "for images, what the model expects", flag_values=FLAGS)
flags.DEFINE_integer("samples", 256, "calibration samples, 0 for all", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "seed of everything random", lower_bound=0, flag_values=FLAGS)
command_line.define_custom_objects(FLAGS)
flags.DEFINE_boolean("progress", True, "show progress on a terminal", flag_values=FLAGS)

_READ = ("model", "calibration_data", "evaluation_data", "evaluation_labels")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_search, FLAGS, __doc__, argv)


def _search(arguments: list[str]) -> None:
    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}")
    command_line.require(FLAGS, "model", "calibration_data", "evaluation_data", "output")
    check_preprocessing(FLAGS.preprocessing, FLAGS.calibration_data, FLAGS.evaluation_data)
    command_line.keep_apart(FLAGS, ("output", "plot", "json"), _READ)
    for path in filter(None, (FLAGS.output, FLAGS.plot, FLAGS.json)):
        check_writable(path)
    with quiet_import():  # here, so that --help and wrong flags do not wait for TensorFlow
        from tfptq.exploration.pareto import check_picture
        from tfptq.exploration.search import search
        from tfptq.prepare.network import open_model
        from tfptq.prepare.sources import known_inputs

    if FLAGS.plot:
        check_picture(Path(FLAGS.plot))
    command_line.import_custom_objects(FLAGS.custom_objects)
    model = open_model(FLAGS.model, None, FLAGS.signature)
    specs = known_inputs(model)
    with warnings.catch_warnings():
        # The table has those of the search and of its file.
        warnings.filterwarnings("ignore", category=UserWarning, module=__name__)
        warnings.simplefilter("ignore", QuantizationWarning)
        found = search(
            model,
            load_calibration_data(FLAGS.calibration_data, specs, FLAGS.samples, FLAGS.seed, FLAGS.preprocessing),
            load_calibration_data(FLAGS.evaluation_data, specs, 0, FLAGS.seed, FLAGS.preprocessing),
            labels=None if FLAGS.evaluation_labels is None else load_labels(FLAGS.evaluation_labels),
            max_drop=FLAGS.max_drop,
            objective=FLAGS.objective,
            target=FLAGS.target,
            metric=FLAGS.metric,
            most_trials=FLAGS.most_trials,
            budget_seconds=FLAGS.budget_seconds,
            checkpoint_dir=FLAGS.checkpoint_dir,
            seed=FLAGS.seed,
            progress=FLAGS.progress,
        )
    found.best.save(FLAGS.output)
    if FLAGS.json:
        write_atomically(FLAGS.json, found.to_json() + "\n")
    if FLAGS.plot:
        found.save_plot(FLAGS.plot)
    command_line.show(f"{found.render()}\n\nwrote {FLAGS.output}")
    if not found.reached:
        raise command_line.JobError(f"no file is within a drop of {FLAGS.max_drop:g}; see the warnings")
