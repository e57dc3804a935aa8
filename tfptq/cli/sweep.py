"""Try granularities of weight scales on a model: accuracy, number of scales and bytes over a grid of block shapes.

    tfptq-sweep-granularity net.keras --calibration_data=samples.npy --output=study

Every cell of the grid quantizes the model and runs the file on the evaluation data. The folder --output receives
cells.json, cells.csv and plot.png. Finished cells are kept in cells.json: call the same command again after an
interruption, or with a larger grid, and it goes on where it was.
"""

import csv
import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfptq.base.files import write_atomically
from tfptq.base.quiet import quiet_import
from tfptq.cli import command_line
from tfptq.cli.calibration_files import (
    PREPROCESSING,
    check_preprocessing,
    image_paths,
    load_calibration_data,
    load_labels,
)
from tfptq.cli.command_line import UsageError
from tfptq.cli.sweep_cells import Cell, Records, describe, grid
from tfptq.cli.sweep_plot import require_matplotlib, write_plot
from tfptq.config import QuantizationConfig
from tfptq.core.affine import SCALE_KINDS, WEIGHT_BITS
from tfptq.version import __version__

if TYPE_CHECKING:  # they load TensorFlow, which the flags need not wait for
    from tfptq.evaluation.result import Evaluation

FLAGS = command_line.new_flags()
flags.DEFINE_string("model", None, "the trained model, .keras or .h5, with one output", flag_values=FLAGS)
flags.DEFINE_string("calibration_data", None, ".npy or .npz file, or folder of images", flag_values=FLAGS)
flags.DEFINE_string(
    "evaluation_data", None, "the same, to judge the files on; the calibration data unless given", flag_values=FLAGS
)
flags.DEFINE_string(
    "evaluation_labels", None, ".npy file with the class of each evaluation sample, for accuracy", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "folder for the results; made when it is missing", flag_values=FLAGS)
flags.DEFINE_list(
    "granularities",
    ["tensor", "channel", "4x4", "8x8", "16x16", "32x32", "4ib"],
    "tensor, channel, MxN (output x input channels of a block), HIB such as 4ib (input blocks, as many output channels "
    "in each as keep the scales at those of channel)",
    flag_values=FLAGS,
)
flags.DEFINE_list("bits", ["4"], "widths of the weights", flag_values=FLAGS)
flags.DEFINE_list("scalers", ["integer"], "kinds of block scale: float, integer, shift", flag_values=FLAGS)
flags.DEFINE_enum("reorder", "both", ["both", "yes", "no"], "reorder channels before blocks", flag_values=FLAGS)
flags.DEFINE_enum(
    "weight_scale",
    "mse",
    ["max_abs", "mse", "output"],
    "how scales are searched; output takes longer",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "edge_bits",
    8,
    "least width of the weights of the layers at the inputs and the outputs; 0 treats them as all others",
    flag_values=FLAGS,
)
flags.DEFINE_enum("preprocessing", None, list(PREPROCESSING), "for images, what the model expects", flag_values=FLAGS)
flags.DEFINE_integer("samples", 256, "calibration samples, 0 for all", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "random seed", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_boolean("plot", True, "write plot.png, which needs matplotlib", flag_values=FLAGS)
flags.DEFINE_boolean("progress", True, "show progress on a terminal", flag_values=FLAGS)

COLUMNS = (
    *("granularity", "bits", "scaler", "reorder", "scales", "bytes", "weight_snr_db", "layer_output_snr_db"),
    *("snr_db", "agreement", "accuracy", "seconds"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_sweep, FLAGS, __doc__, argv)


def _sweep(arguments: list[str]) -> None:
    command_line.take_model(FLAGS, arguments)
    command_line.require(FLAGS, "model", "calibration_data", "output")
    check_preprocessing(FLAGS.preprocessing, *filter(None, (FLAGS.calibration_data, FLAGS.evaluation_data)))
    if FLAGS.edge_bits not in (0, *WEIGHT_BITS):
        raise UsageError(f"--edge_bits={FLAGS.edge_bits} must be 0 or one of {', '.join(map(str, WEIGHT_BITS))}")
    if FLAGS.evaluation_labels is not None and FLAGS.evaluation_data is None:
        raise UsageError("--evaluation_labels needs --evaluation_data: calibration samples are a random choice")
    cells = _read_grid()
    if FLAGS.plot:
        require_matplotlib()
    folder = Path(FLAGS.output)
    if folder.is_file():
        raise UsageError(f"--output={folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder / "cells.json", _settings())
    missing = [cell for cell in cells if cell.name not in records.cells]
    print(f"{len(cells)} cells, {len(cells) - len(missing)} of them finished before")
    if missing:
        _measure(missing, records)
    _write_results(folder, [records.cells[cell.name] for cell in cells])


def _read_grid() -> list[Cell]:
    wrong = [text for text in FLAGS.bits if not text.isdigit() or int(text) not in WEIGHT_BITS]
    if wrong:
        raise UsageError(f"--bits has {wrong[0]!r}; widths are {', '.join(map(str, WEIGHT_BITS))}")
    unknown = sorted({*FLAGS.scalers} - {*SCALE_KINDS})
    if unknown:
        raise UsageError(f"--scalers has {unknown[0]!r}; kinds of scale are {', '.join(SCALE_KINDS)}")
    reorder = {"both": [False, True], "yes": [True], "no": [False]}[FLAGS.reorder]
    try:
        return grid(FLAGS.granularities, [int(text) for text in FLAGS.bits], FLAGS.scalers, reorder)
    except ValueError as error:
        raise UsageError(f"--granularities, --bits, --scalers: {error}") from error


def _settings() -> dict[str, Any]:
    """What the numbers depend on besides the cell."""
    names = ("model", "calibration_data", "evaluation_data", "evaluation_labels")
    paths = {name: None if FLAGS[name].value is None else _stamp(Path(FLAGS[name].value)) for name in names}
    return (
        {"version of tfptq": __version__}
        | paths
        | {name: FLAGS[name].value for name in ("weight_scale", "edge_bits", "preprocessing", "samples", "seed")}
    )


def _stamp(path: Path) -> list[Any]:
    """Tells a file, or a folder of images, from another, or from its later self."""
    digest = hashlib.sha256()
    for file in image_paths(path) if path.is_dir() else [path]:
        found = file.stat()
        digest.update(f"{file.relative_to(path)}\n{found.st_size}\n{found.st_mtime_ns}\n".encode())
    return [str(path.resolve()), digest.hexdigest()]


def _measure(cells: list[Cell], records: Records) -> None:
    with quiet_import():  # here, so that --help and wrong flags do not wait for TensorFlow
        from tfptq.data.checks import input_specs
        from tfptq.evaluation.evaluate import evaluate
        from tfptq.evaluation.files import float_reference
        from tfptq.prepare.load_model import load_model
        from tfptq.quantization import quantize_keras_model

    model = load_model(FLAGS.model)
    if len(model.outputs) != 1:
        raise ValueError(f"the model {model.name!r} has {len(model.outputs)} outputs; a study needs a model with one")
    specs = input_specs(model)
    samples = load_calibration_data(FLAGS.calibration_data, specs, FLAGS.samples, FLAGS.seed, FLAGS.preprocessing)
    evaluation = samples
    if FLAGS.evaluation_data is not None:
        evaluation = load_calibration_data(FLAGS.evaluation_data, specs, 0, FLAGS.seed, FLAGS.preprocessing)
    labels = None if FLAGS.evaluation_labels is None else load_labels(FLAGS.evaluation_labels)

    def evaluated(file: Any, float_model: Any = None) -> dict[str, float | None]:
        return judge(evaluate(file, evaluation, float_model, labels=labels, latency_seconds=0, progress=False))

    evaluated(float_reference(model, evaluation), model)  # so that labels that do not fit are found now
    # Rounded to nearest and not equalized, so that the granularity alone makes the difference.
    base = QuantizationConfig.from_preset("w8a8_layer").replace(
        weight_scale=FLAGS.weight_scale, edge_bits=FLAGS.edge_bits or None, target="any"
    )
    for number, cell in enumerate(cells, 1):
        result = quantize_keras_model(model, samples, cell.config(base), seed=FLAGS.seed, progress=FLAGS.progress)
        record = describe(result, cell) | evaluated(result)
        records.add(cell.name, record)
        print(f"{number} of {len(cells)}: {cell.name}: {_line(record)}", flush=True)


def judge(found: "Evaluation") -> dict[str, float | None]:
    """Signal to noise of outputs in dB, agreement with the float model, and accuracy, as far as there are any."""
    ratio = found.snr_db if found.snr_db is not None and math.isfinite(found.snr_db) else None
    return {"snr_db": ratio, "agreement": found.agreement, "accuracy": found.score}


def _line(record: dict[str, Any]) -> str:
    shown = [f"{record['scales']} scales", f"{record['bytes']} bytes"]
    shown += [f"outputs {record['snr_db']:.2f} dB"] if record["snr_db"] is not None else []
    shown += [f"{name} {record[name]:.2%}" for name in ("agreement", "accuracy") if record[name] is not None]
    return ", ".join(shown)


def _write_results(folder: Path, records: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_atomically(folder / "cells.csv", text.getvalue())
    written = ["cells.json", "cells.csv"]
    if FLAGS.plot:
        write_plot(folder / "plot.png", records)
        written.append("plot.png")
    command_line.show(f"wrote {', '.join(str(folder / name) for name in written)}")
