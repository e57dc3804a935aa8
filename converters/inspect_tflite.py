"""Show what is in a quantized .tflite file: inputs and outputs, blocks, scales and bits, and what made it.

tfptq-inspect net.tflite
tfptq-inspect --json net.tflite
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from absl import flags

from converters import command_line

FLAGS = command_line.new_flags()
flags.DEFINE_boolean("json", False, "print JSON in place of text", flag_values=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_inspect, FLAGS, __doc__, argv)


def _inspect(arguments: list[str]) -> None:
    path = command_line.one_path(arguments)
    with command_line.quiet_import():
        from tfptq.model_ends import model_ends, render_ends
        from tfptq.tflite.inspect import inspect
    result, ends = inspect(path), model_ends(path)
    if FLAGS.json:
        print(json.dumps({"inputs_and_outputs": [asdict(row) for row in ends], **asdict(result)}, indent=2))
    else:
        print(f"{render_ends(ends)}\n\n{result.render()}")


if __name__ == "__main__":
    sys.exit(main())
