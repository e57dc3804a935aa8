"""What the programs have in common: flags, help, exit codes, errors in one line.

Exit codes: 0 all is well, 1 the job failed, 2 the command line is wrong, 130 interrupted.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from tfptq.version import __version__


class UsageError(Exception):
    """The command line asks for something that makes no sense."""


class JobError(Exception):
    """The job failed for a reason that its message tells the user."""


def new_flags() -> flags.FlagValues:
    """Flags that every program has. Each program owns its set, so that several can live in one process."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    flags.DEFINE_boolean("help", False, "show this help", flag_values=values, short_name="h")
    flags.DEFINE_boolean("version", False, "show the version of tfptq", flag_values=values)
    flags.DEFINE_boolean("traceback", False, "show where an error comes from, for bug reports", flag_values=values)
    return values


def run(
    job: Callable[[list[str]], None],
    values: flags.FlagValues,
    usage: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line and do the job.

    Args:
        job: takes the arguments that are not flags; raises ``UsageError``, ``JobError``, ``ValueError`` or
            ``OSError`` for what the user can mend. Other exceptions are bugs and keep their traceback.
        usage: what the program does and how to call it, shown by ``--help``.
        argv: command line, ``sys.argv`` unless given.

    Returns:
        The exit code.
    """
    argv = list(sys.argv if argv is None else argv)
    program = os.path.basename(argv[0])
    values.unparse_flags()
    try:
        arguments = values(argv)[1:]
        if values.help:
            print(f"{usage.strip()}\n{values.get_help(include_special_flags=False)}")
            return 0
        if values.version:
            print(f"tfptq {__version__}")
            return 0
        job(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as head, has seen enough; nothing more can be written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UsageError, flags.Error) as error:
        return _fail(program, f"{error} (see {program} --help)", 2)
    except (JobError, ValueError, OSError) as error:
        if values.is_parsed() and values.traceback:
            raise
        return _fail(program, str(error), 1)
    except KeyboardInterrupt:
        return _fail(program, "interrupted", 130)
    return 0


def require(values: flags.FlagValues, *names: str) -> None:
    """Refuse a command line without these flags.

    Raises:
        UsageError: naming those that are missing.
    """
    missing = [f"--{name}" for name in names if values[name].value is None]
    if missing:
        raise UsageError(f"missing {', '.join(missing)}")


def take_model(values: flags.FlagValues, arguments: list[str]) -> None:
    """Let an argument that is no flag be the value of ``--model``.

    Raises:
        UsageError: there are several, or the flag is given as well.
    """
    if arguments and (len(arguments) > 1 or values.model is not None):
        named = [*([] if values.model is None else [f"--model={values.model}"]), *arguments]
        raise UsageError(f"name one model; there are {', '.join(named)}")
    if arguments:
        values.model = arguments[0]


def keep_apart(values: flags.FlagValues, written: Sequence[str], read: Sequence[str]) -> None:
    """Refuse to write a file over one that is read or written already: names of flags whose values are paths or None.

    Raises:
        UsageError: naming both flags.
    """
    for position, name in enumerate(written):
        for other in (*read, *written[:position]):
            path, taken = values[name].value, values[other].value
            if path is not None and taken is not None and _same_file(path, taken):
                raise UsageError(f"--{name}={path} would overwrite the file of --{other}={taken}; name another file")


def _same_file(path: str, other: str) -> bool:
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def define_custom_objects(values: flags.FlagValues) -> None:
    """Add the flag whose value ``import_custom_objects`` takes."""
    flags.DEFINE_string(
        "custom_objects",
        None,
        "Python module, such as package.layers, that registers the model's own classes with "
        "keras.saving.register_keras_serializable; it is imported, from the current folder too, before the model is "
        "loaded",
        flag_values=values,
    )


def import_custom_objects(module: str | None) -> None:
    """Import the module of ``--custom_objects``.

    Raises:
        UsageError: it cannot be imported.
    """
    if module is None:
        return
    if os.getcwd() not in sys.path:  # the path of an installed program starts with the folder of the program
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"--custom_objects={module} cannot be imported: {error}") from error


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Put the name of a file or flag before messages that do not know it."""
    try:
        yield
    except ValueError as error:
        raise JobError(f"{what}: {error}") from error


def one_path(arguments: list[str]) -> str:
    """The single file that a program is called with.

    Raises:
        UsageError: none, or several.
        FileNotFoundError: no such file.
    """
    if len(arguments) != 1:
        raise UsageError(f"name one .tflite file; there are {len(arguments)}")
    if not os.path.isfile(arguments[0]):
        raise FileNotFoundError(f"no such file: {arguments[0]}")
    return arguments[0]


def _fail(program: str, message: str, code: int) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return code
