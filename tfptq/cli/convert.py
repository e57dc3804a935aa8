"""Quantize a trained Keras model into a .tflite file.

    tfptq-keras-to-tflite --model=net.keras --calibration_data=samples.npy --output=net.tflite

Calibration data are a few hundred typical inputs, as the model takes them: a .npy array [samples, ...], a .npz file
with one such array for each input under its name, or a folder of images (with --preprocessing). The report goes to
standard output.

--set changes one field of the preset or config and can be given several times: --set=layout=int8
--set=multipliers=2,3,4,6 --set=rounding=nearest --set=granularity='{"type": "PerBlock", "input_blocks": 4}'
A part of a field goes by its name behind a dot, and the other parts stay: --set=rounding.steps=1000
"""

import ast
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfptq.base.files import check_writable, read_whole, write_atomically
from tfptq.cli import command_line
from tfptq.cli.calibration_files import PREPROCESSING, check_preprocessing, load_calibration_data
from tfptq.cli.command_line import UsageError
from tfptq.config import DEFAULT_PRESET, PRESETS, TARGETS, QuantizationConfig

#: Ending of --report -> the text of a report in that form.
REPORTS = {
    ".html": lambda report: report.to_html(),
    ".json": lambda report: report.to_json(),
    ".txt": lambda report: report.render(),
}
#: Fields of a config that are objects in JSON -> the key that a word alone stands for.
_KEY_OF_A_WORD = {"calibration": "method", "granularity": "type", "rounding": "method"}

FLAGS = command_line.new_flags()
flags.DEFINE_string("model", None, "the trained model, .keras or .h5", flag_values=FLAGS)
flags.DEFINE_string("calibration_data", None, ".npy or .npz file, or folder of images", flag_values=FLAGS)
flags.DEFINE_string("output", None, "the .tflite file to write", flag_values=FLAGS)
flags.DEFINE_enum("preset", None, list(PRESETS), f"how to quantize; {DEFAULT_PRESET} unless given", flag_values=FLAGS)
flags.DEFINE_enum(
    "target",
    None,
    list(TARGETS),
    "kind of device, in place of that of the config; cpu by default",
    flag_values=FLAGS,
)
flags.DEFINE_string("config", None, "JSON file with a quantization config, in place of a preset", flag_values=FLAGS)
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
    "for images, what the model expects: raw pixels 0..255, unit 0..1, tf -1..1, torch ImageNet mean and deviation",
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
flags.DEFINE_string("report", None, "also write the report, to a .html, .json or .txt file", flag_values=FLAGS)
flags.DEFINE_string(
    "checkpoint_dir",
    None,
    "folder for finished weights; the same command goes on from there after an interruption",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_memory",
    None,
    "bytes that stored activations may take while weights are fitted; a smaller number costs time",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "custom_objects",
    None,
    "Python module, such as package.layers, that registers the model's own classes with "
    "keras.saving.register_keras_serializable; it is imported, from the current folder too, before the model is loaded",
    flag_values=FLAGS,
)
flags.DEFINE_integer("seed", 0, "seed of everything random", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_boolean("progress", True, "show progress on a terminal", flag_values=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_convert, FLAGS, __doc__, argv)


def _convert(arguments: list[str]) -> None:
    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}")
    command_line.require(FLAGS, "model", "calibration_data", "output")
    _check_report_path(FLAGS.report)
    command_line.keep_apart(FLAGS, ("output", "report"), ("model", "calibration_data", "config"))
    check_preprocessing(FLAGS.preprocessing, FLAGS.calibration_data)
    config = _read_config()
    for path in filter(None, (FLAGS.output, FLAGS.report)):
        check_writable(path)

    with command_line.quiet_import():  # here, so that --help and wrong flags do not wait for TensorFlow
        from tfptq.data.checks import input_specs
        from tfptq.export import export_simulation, read_simulation
        from tfptq.layers import wrappers
        from tfptq.prepare.network import load_model
        from tfptq.quantize import quantize_keras_model

    if FLAGS.custom_objects:
        _import(FLAGS.custom_objects)
    model = load_model(FLAGS.model)
    samples = load_calibration_data(
        FLAGS.calibration_data, input_specs(model), FLAGS.samples, FLAGS.seed, FLAGS.preprocessing
    )
    try:
        if wrappers(model):
            _refuse_for_simulations()
            if not (FLAGS.preset or FLAGS.config):
                config = _changed(read_simulation(model).config)
            result = export_simulation(model, samples, config, progress=FLAGS.progress)
        else:
            limits = {} if FLAGS.max_memory is None else {"max_memory": FLAGS.max_memory}
            result = quantize_keras_model(
                model,
                samples,
                config,
                seed=FLAGS.seed,
                progress=FLAGS.progress,
                checkpoint_dir=FLAGS.checkpoint_dir,
                **limits,
            )
    except (TypeError, RuntimeError) as error:  # the facade documents both; ValueError is one line anyway
        raise command_line.JobError(f"{error} (--traceback shows where)") from error
    result.save(FLAGS.output)
    if FLAGS.report:
        write_atomically(FLAGS.report, REPORTS[Path(FLAGS.report).suffix](result.report).rstrip("\n") + "\n")
    command_line.show(f"{result.report.render()}\n\nwrote {FLAGS.output}")


def _import(module: str) -> None:
    if os.getcwd() not in sys.path:  # the path of an installed program starts with the folder of the program
        sys.path.insert(0, os.getcwd())
    if not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"--custom_objects={module} is no name of a module, such as package.layers")
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the code of the user raises
        raise UsageError(f"--custom_objects={module} cannot be imported: {type(error).__name__}: {error}") from error


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
        raise UsageError(f"--set, --target, --input_type or --output_type: {error}") from error


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
    if path is not None and Path(path).suffix not in REPORTS:
        raise UsageError(f"--report={path} must end in {', '.join(REPORTS)}")
