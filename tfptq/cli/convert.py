"""Quantize a trained model into a .tflite file.

    tfptq-keras-to-tflite net.keras --calibration_data=samples.npy --output=net.tflite

The model is a .keras or .h5 file, the folder of a SavedModel, or a float .tflite file; --model=net.keras is the same.

Calibration data are a few hundred typical inputs, as the model takes them: a .npy array [samples, ...], a .npz file
with one such array for each input under its name, or a folder of images (with --preprocessing). The report goes to
standard output, and behind it what the file gives on --evaluation_data, if there are any. Presets of float activations
(w8_dynamic, float16) do without calibration data.

--set changes one field of the preset or config and can be given several times: --set=layout=int8
--set=multipliers=2,3,4,6 --set=rounding=nearest --set=granularity='{"type": "PerBlock", "input_blocks": 4}'
A part of a field goes by its name behind a dot, and the other parts stay: --set=rounding.steps=1000
"""

import ast
import contextlib
import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfptq.base.files import check_writable, read_whole
from tfptq.base.quiet import quiet_import
from tfptq.base.text import counted
from tfptq.cli import command_line
from tfptq.cli.calibration_files import PREPROCESSING, check_preprocessing, load_calibration_data, load_labels
from tfptq.cli.command_line import UsageError
from tfptq.config import DEFAULT_PRESET, PRESETS, TARGETS, QuantizationConfig
from tfptq.report import QuantizationWarning
from tfptq.report.report import FORMS
from tfptq.report.table import print_report
from tfptq.tflite.app_metadata import AppMetadata, with_app_metadata

if TYPE_CHECKING:  # the flags need not wait for TensorFlow
    from tfptq.data.checks import InputSpec

#: Fields of a config that are objects in JSON -> the key that a word alone stands for.
_KEY_OF_A_WORD = {"calibration": "method", "granularity": "type", "rounding": "method"}

FLAGS = command_line.new_flags()
_MODEL_HELP = "the trained model: .keras, .h5, SavedModel, float .tflite; the argument that is no flag"
flags.DEFINE_string("model", None, _MODEL_HELP, flag_values=FLAGS)
flags.DEFINE_string("signature", None, "of a SavedModel or .tflite file; the first by default", flag_values=FLAGS)
flags.DEFINE_string("calibration_data", None, ".npy or .npz file, or folder of images", flag_values=FLAGS)
flags.DEFINE_string("output", None, "the .tflite file to write", flag_values=FLAGS)
flags.DEFINE_enum("preset", None, list(PRESETS), f"how to quantize (default: {DEFAULT_PRESET})", flag_values=FLAGS)
flags.DEFINE_enum(
    "target",
    None,
    list(TARGETS),
    "kind of device, in place of that of the config; cpu by default",
    flag_values=FLAGS,
)
flags.DEFINE_string("config", None, "JSON file with a quantization config, instead of a preset", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "set",
    [],
    "name=value: another value for a field of the preset or config, as JSON, Python or a word; later ones win",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "preprocessing",
    None,
    list(PREPROCESSING),
    "for images, what the model expects: raw pixels 0..255, unit 0..1, tf -1..1, torch ImageNet mean and deviation, "
    "caffe BGR minus the ImageNet mean",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "samples", 256, "use at most this many samples, chosen at random; 0 for all", lower_bound=0, flag_values=FLAGS
)
for _end in ("input", "output"):
    flags.DEFINE_enum(
        f"{_end}_type",
        None,
        ["float32", "int8", "uint8", "int16"],
        f"type of the {_end}s of the file, in place of the one in the config; int16 goes with 16-bit activations",
        flag_values=FLAGS,
    )
flags.DEFINE_string(
    "class_names",
    None,
    "text file with the name of a class on each line: goes into the file for apps, with the normalization of "
    "--preprocessing (TFLite Metadata)",
    flag_values=FLAGS,
)
flags.DEFINE_string("report", None, f"also write the report, to a {', '.join(FORMS)} file", flag_values=FLAGS)
flags.DEFINE_string(
    "checkpoint_dir",
    None,
    "folder for finished weights; after an interruption, the same command continues from there",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_memory",
    None,
    "maximum bytes of stored activations while weights are fitted; less memory costs time",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "evaluation_data",
    None,
    "also evaluate the file on these samples, in the formats of --calibration_data",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "evaluation_labels", None, "their labels, a .npy file, or .npz with one array for each output", flag_values=FLAGS
)
command_line.define_custom_objects(FLAGS)
flags.DEFINE_integer("seed", 0, "random seed", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_boolean("progress", True, "show progress on a terminal", flag_values=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_convert, FLAGS, __doc__, argv)


def _convert(arguments: list[str]) -> None:
    command_line.take_model(FLAGS, arguments)
    default = not (FLAGS.preset or FLAGS.config or FLAGS.set)  # which needs samples; other configs may not
    command_line.require(FLAGS, "model", *(("calibration_data",) if default else ()), "output")
    _check_report_path(FLAGS.report)
    read = ("model", "calibration_data", "config", "evaluation_data", "evaluation_labels", "class_names")
    command_line.keep_apart(FLAGS, ("output", "report"), read)
    check_preprocessing(FLAGS.preprocessing, *filter(None, (FLAGS.calibration_data, FLAGS.evaluation_data)))
    if FLAGS.evaluation_labels and not FLAGS.evaluation_data:
        raise UsageError("--evaluation_labels needs --evaluation_data")
    config = _read_config()
    app_metadata = None if FLAGS.class_names is None else _app_metadata(FLAGS.class_names, FLAGS.preprocessing)
    if FLAGS.calibration_data is None:
        _check_without_samples(config)
    for path in filter(None, (FLAGS.output, FLAGS.report)):
        check_writable(path)

    with quiet_import():  # here, so that --help and wrong flags do not wait for TensorFlow
        from tfptq.export import export_simulation, read_simulation
        from tfptq.float_file.file_model import FileModel
        from tfptq.layers import wrappers
        from tfptq.prepare.load_model import load_model
        from tfptq.prepare.sources import file_source, known_inputs
        from tfptq.quantization import quantize

    command_line.import_custom_objects(FLAGS.custom_objects)
    model = file_source(FLAGS.model, None, FLAGS.signature) or load_model(FLAGS.model)
    samples = None
    if FLAGS.calibration_data is not None:
        samples = load_calibration_data(
            FLAGS.calibration_data, known_inputs(model), FLAGS.samples, FLAGS.seed, FLAGS.preprocessing
        )
    evaluation = _evaluation_data(known_inputs(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)  # the report begins with them
        try:
            if not isinstance(model, FileModel) and wrappers(model):
                _refuse_for_simulations()
                if not (FLAGS.preset or FLAGS.config):
                    config = _changed(read_simulation(model).config)
                result = export_simulation(model, samples, config, progress=FLAGS.progress)
                if app_metadata is not None:
                    result = dataclasses.replace(result, tflite=with_app_metadata(result.tflite, app_metadata))
            else:
                limits = {} if FLAGS.max_memory is None else {"max_memory": FLAGS.max_memory}
                result = quantize(
                    model,
                    samples,
                    config,
                    seed=FLAGS.seed,
                    progress=FLAGS.progress,
                    checkpoint_dir=FLAGS.checkpoint_dir,
                    app_metadata=app_metadata,
                    **limits,
                )
        except (TypeError, RuntimeError) as error:  # the facade documents both; ValueError is one line anyway
            raise command_line.JobError(f"{error} (--traceback shows where)") from error
    result.save(FLAGS.output)
    if FLAGS.report:
        result.report.save(FLAGS.report)
    print_report(result.report)
    found = f"; {counted(len(result.report.findings), 'warning')}, see above" if result.report.findings else ""
    print(f"\nwrote {FLAGS.output}{found}")
    if evaluation is not None:
        print(f"\n{result.evaluate(*evaluation, progress=FLAGS.progress)}")


def _app_metadata(path: str, preprocessing: str | None) -> AppMetadata:
    """What is in a file of names, and how apps have to normalize pictures."""
    names = Path(path).read_text(encoding="utf-8").splitlines()
    found = None if preprocessing is None else PREPROCESSING[preprocessing]
    if found is not None and found.bgr:
        raise UsageError(f"--class_names tells apps of pictures in RGB; --preprocessing={preprocessing} reads BGR")
    with command_line.naming(f"--class_names={path}"):
        if found is None:
            return AppMetadata(names)
        channels = max(len(found.offset), len(found.divisor))
        mean, std = (values * (channels // len(values)) for values in (found.offset, found.divisor))
        return AppMetadata(names, mean, std)


def _evaluation_data(inputs: "tuple[InputSpec, ...]") -> tuple[Any, Any] | None:
    """Samples and labels that the file shall be evaluated on."""
    if FLAGS.evaluation_data is None:
        return None
    labels = None if FLAGS.evaluation_labels is None else load_labels(FLAGS.evaluation_labels)
    return load_calibration_data(FLAGS.evaluation_data, inputs, 0, FLAGS.seed, FLAGS.preprocessing), labels


def _check_without_samples(config: QuantizationConfig) -> None:
    """Refuse a config that needs calibration data."""
    try:
        config.without_samples()
    except ValueError as error:
        raise UsageError(f"missing --calibration_data: {error}") from error


def _refuse_for_simulations() -> None:
    for name in ("checkpoint_dir", "max_memory"):
        if FLAGS[name].value is not None:
            raise UsageError(f"--{name} is for fitting weights, and those of a simulation stay as they are")


def _read_config() -> QuantizationConfig:
    if FLAGS.preset and FLAGS.config:
        raise UsageError("give --preset or --config, not both")
    if FLAGS.config:
        content = read_whole(FLAGS.config)
        with command_line.naming(f"--config={FLAGS.config}"):
            config = QuantizationConfig.from_json(content.decode("utf-8"))
        return _changed(config)
    return _changed(QuantizationConfig.from_preset(FLAGS.preset or DEFAULT_PRESET))


def _changed(config: QuantizationConfig) -> QuantizationConfig:
    """The config with what --set, --target, --input_type and --output_type change."""
    types = {name: FLAGS[name].value for name in ("target", "input_type", "output_type") if FLAGS[name].value}
    if not (FLAGS.set or types):
        return config
    values = config.to_dict()
    named = [_put(values, name, value) for name, value in map(_read_change, FLAGS.set)]
    # By way of JSON, and all at once: fields that only go together, such as granularity and scaler, are set together.
    changes = {**{name: values[name] for name in named}, **types}
    try:
        return config.replace_json(json.loads(json.dumps(changes)))
    except ValueError as error:
        given = [*(f"--set={text}" for text in FLAGS.set), *(f"--{name}={value}" for name, value in types.items())]
        raise UsageError(f"{' '.join(given)}: {error}") from error


def _put(config: dict[str, Any], name: str, value: Any) -> str:
    """Set a field of a config as JSON has it, or by ``field.part`` a part of a field that has parts; its name."""
    field, dot, part = name.partition(".")
    if not dot or field not in config:  # an unknown field is refused with all others
        config[name] = value
        return name
    whole = {} if config[field] is None else config[field]
    if not isinstance(whole, dict):
        raise UsageError(f"--set={name}: the field {field!r} has no parts; set it as a whole: --set={field}=value")
    config[field] = {**whole, part: value}
    return field


def _read_change(text: str) -> tuple[str, Any]:
    """Name and value, as JSON has it, of a field of the config."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--set={text} is no name=value, such as --set=layout=int8")
    parsed = _parse(value)
    if isinstance(parsed, str) and name in _KEY_OF_A_WORD:
        parsed = {_KEY_OF_A_WORD[name]: parsed}
    return name, parsed


def _parse(text: str) -> Any:
    """A value written as in JSON or as in Python, else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            value = parse(text)
            json.dumps(value)  # a set, for one, is Python but no JSON
            return value
    return text


def _check_report_path(path: str | None) -> None:
    if path is not None and Path(path).suffix not in FORMS:
        raise UsageError(f"--report={path} must end in {', '.join(FORMS)}")
