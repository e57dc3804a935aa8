"""What the programs have in common: flags, help, exit codes, errors in one line.

Exit codes: 0 all is well, 1 the job failed, 2 the command line is wrong, 130 interrupted.
"""

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from tfptq.base.arguments import did_you_mean
from tfptq.base.text import printable, shortened
from tfptq.version import __version__

#: Letters of a message; the names and numbers of a file may have any length.
_LONGEST_MESSAGE = 4000
#: What the flags say of a value that is none of those allowed.
_NO_CHOICE = re.compile(r"--\w+=(?P<value>.*): value should be one of <(?P<choices>.*)>")


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
            ``OSError`` for what the user can mend, or MemoryError. Other exceptions are bugs and keep their traceback.
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
        _refuse_empty(values)
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
        return _fail(program, f"{error}{_close_name(str(error))} (see {program} --help)", 2)
    except (JobError, ValueError, OSError, MemoryError) as error:
        if values.is_parsed() and values.traceback:
            raise
        return _fail(program, _reason(error) or "there is not enough memory", 1)
    except KeyboardInterrupt:
        return _fail(program, "interrupted", 130)
    return 0


def show(text: str) -> None:
    """Print lines, with escapes for what a terminal would obey in names that come from files."""
    print(printable(text, keep="\n"))


def show_json(text: str) -> None:
    """Print JSON of ASCII, whose texts have escapes for all control characters but one."""
    print(text.replace("\x7f", "\\u007f"))


def _refuse_empty(values: flags.FlagValues) -> None:
    """Refuse flags that are given without a value: ``--output=`` is a slip, and no path.

    Raises:
        UsageError: naming the first.
    """
    for name in values:
        if values[name].value == "":
            raise UsageError(f"--{name} is empty; give it a value, or leave it out")


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
        UsageError: it is no name of a module, or it cannot be imported.
    """
    if module is None:
        return
    if not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"--custom_objects={module} is no name of a module, such as package.layers")
    if os.getcwd() not in sys.path:  # the path of an installed program starts with the folder of the program
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the code of the user raises
        raise UsageError(f"--custom_objects={module} cannot be imported: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Put the name of a file or flag before messages that do not know it."""
    try:
        yield
    except ValueError as error:
        raise JobError(f"{what}: {error}") from error
    except OSError as error:
        raise JobError(f"{what}: {error.strerror or error}") from error


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


def _reason(error: Exception) -> str:
    """What an error says, with the file in front where Python has a number there."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _close_name(message: str) -> str:
    """The question after a close name, for what the flags say of a value that is none of those allowed."""
    found = _NO_CHOICE.search(message)
    return did_you_mean(found["value"], found["choices"].split("|")) if found else ""


def _fail(program: str, message: str, code: int) -> int:
    line = shortened(" ".join(message.split()), _LONGEST_MESSAGE)
    print(f"{program}: {printable(line)}", file=sys.stderr)
    return code
