"""Check a quantized .tflite file against its own block metadata.

    tfptq-verify net.tflite

The exit code is 0 when all checks pass, 1 when one fails or the file cannot be read, 2 for a wrong command line.
"""

from collections.abc import Sequence

from absl import flags

from tfptq.base.quiet import quiet_import
from tfptq.cli import command_line

FLAGS = command_line.new_flags()
flags.DEFINE_boolean("json", False, "print JSON in place of text", flag_values=FLAGS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return command_line.run(_verify, FLAGS, __doc__, argv)


def _verify(arguments: list[str]) -> None:
    path = command_line.one_path(arguments)
    with quiet_import():
        from tfptq.tflite.verify import verify
    with command_line.naming(path):
        result = verify(path)
    if FLAGS.json:
        command_line.show_json(result.to_json())
    else:
        command_line.show(result.render())
