"""Turn a .tflite file into C++ sources for TFLite Micro.

    tfptq-to-c net.tflite --output_dir=firmware

writes net.cc (the file as an array), net.h (its operators, scales, zero points and the size of its arena) and
net_golden.h (inputs with the outputs that TFLite Micro's reference kernels give, for a test on the device).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tfptq.base.files import write_atomically
from tfptq.base.quiet import quiet_import
from tfptq.cli import command_line

if TYPE_CHECKING:
    import numpy as np

    from tfptq.tflite.micro import MicroInterpreter

FLAGS = command_line.new_flags()
flags.DEFINE_string("output_dir", ".", "folder that the sources are written to", flag_values=FLAGS)
flags.DEFINE_string("name", None, "name of files and namespace; that of the file unless given", flag_values=FLAGS)
flags.DEFINE_string("samples", None, "golden inputs: a .npy file of real values [N, ...]", flag_values=FLAGS)
flags.DEFINE_integer("golden", 4, "how many golden inputs; random ones without --samples", flag_values=FLAGS)
flags.DEFINE_boolean(
    "run", True, "run the file with the package tflite-micro; without, no arena and no golden", flag_values=FLAGS
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_to_c, FLAGS, __doc__, argv)


def _to_c(arguments: list[str]) -> None:
    path = command_line.one_path(arguments)
    name = _identifier(FLAGS.name or Path(path).stem)
    if FLAGS.golden < 1:
        raise command_line.UsageError(f"--golden={FLAGS.golden} must be at least 1; --norun writes none")
    if FLAGS.samples and not FLAGS.run:
        raise command_line.UsageError("--samples needs --run")
    with quiet_import():
        from tfptq.tflite import micro_source
    with command_line.naming(path):
        content = Path(path).read_bytes()
        methods = micro_source.micro_methods(content)
        texts, arena = {}, None
        if FLAGS.run:
            interpreter = _interpreter(content)
            golden = interpreter.golden(_inputs(content))
            texts[f"{name}_golden.h"] = micro_source.micro_golden(content, name, golden)
            arena = interpreter.arena_bytes()
        texts[f"{name}.h"] = micro_source.micro_header(content, name, arena)
        texts[f"{name}.cc"] = micro_source.micro_array(content, name)
    folder = Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_atomically(folder / file, text)
    print(f"wrote {', '.join(sorted(texts))} to {folder}")
    print(f"file: {len(content):,} bytes" + ("" if arena is None else f"; arena: {arena:,} bytes"))
    print("operators:", " ".join(f"resolver.{method}();" for method in methods))


def _interpreter(content: bytes) -> "MicroInterpreter":
    from tfptq.tflite.micro import MicroInterpreter

    try:
        return MicroInterpreter(content)
    except ModuleNotFoundError as error:
        raise command_line.JobError(f"{error}; --norun does without it") from error


def _inputs(content: bytes) -> "tuple[np.ndarray, ...]":
    import numpy as np

    from tfptq.tflite import micro_source

    if FLAGS.samples is None:
        return micro_source.random_inputs(content, FLAGS.golden)
    return micro_source.coded_inputs(content, np.load(FLAGS.samples)[: FLAGS.golden])


def _identifier(text: str) -> str:
    """A name that C++ takes: what is no letter or digit is made an underscore, and one is put before a digit."""
    return re.sub(r"\W|^(?=\d)", "_", text, flags=re.ASCII)
