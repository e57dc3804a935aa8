"""Show what is in a quantized .tflite file: inputs and outputs, blocks, scales and bits, and what made it.

tfptq-inspect net.tflite
tfptq-inspect --json net.tflite
"""

from collections.abc import Sequence

from absl import flags

from tfptq.base.quiet import quiet_import
from tfptq.cli import command_line

FLAGS = command_line.new_flags()
flags.DEFINE_boolean("json", False, "print JSON in place of text", flag_values=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_inspect, FLAGS, __doc__, argv)


def _inspect(arguments: list[str]) -> None:
    path = command_line.one_path(arguments)
    with quiet_import():
        from tfptq.tflite.inspect import inspect
    with command_line.naming(path):
        result = inspect(path)
    if FLAGS.json:
        command_line.show_json(result.to_json())
    else:
        command_line.show(result.render())
