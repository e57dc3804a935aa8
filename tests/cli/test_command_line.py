import pytest
from absl import flags

from tfptq.cli import command_line
from tfptq.cli.command_line import JobError, UsageError
from tfptq.version import __version__


@pytest.fixture
def values():
    values = command_line.new_flags()
    flags.DEFINE_string("name", None, "a name", flag_values=values)
    return values


def run(values, *arguments, raises=None):
    seen = []

    def job(positional):
        seen.append((values.name, positional))
        if raises is not None:
            raise raises

    return command_line.run(job, values, "Does things.", ["/bin/tool", *arguments]), seen


def test_flags_and_arguments_in_any_order(values):
    assert run(values, "a", "--name=x", "b") == (0, [("x", ["a", "b"])])


def test_flags_do_not_leak_from_one_call_into_the_next(values):
    run(values, "--name=x")
    values.name = None
    assert run(values)[1] == [(None, [])]


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_goes_to_standard_output_and_does_nothing(values, capsys, flag):
    assert run(values, flag) == (0, [])
    out, err = capsys.readouterr()
    assert "Does things." in out and "--name: a name" in out and err == ""


def test_version_does_nothing_else(values, capsys):
    assert run(values, "--version") == (0, [])
    assert capsys.readouterr() == (f"tfptq {__version__}\n", "")


@pytest.mark.parametrize(
    "error, code, message",
    [
        (UsageError("one or the other"), 2, "tool: one or the other (see tool --help)\n"),
        (ValueError("two\n   lines"), 1, "tool: two lines\n"),
        (FileNotFoundError("no file"), 1, "tool: no file\n"),
        (FileNotFoundError(2, "No such file or directory", "x.npy"), 1, "tool: x.npy: No such file or directory\n"),
        (
            flags.IllegalFlagValueError("flag --preset=w8a8_chanel: value should be one of <w8a8_shift|w8a8_channel>"),
            2,
            "tool: flag --preset=w8a8_chanel: value should be one of <w8a8_shift|w8a8_channel>; did you mean "
            "'w8a8_channel'? (see tool --help)\n",
        ),
        (JobError("no such layer"), 1, "tool: no such layer\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
    ],
)
def test_errors_are_one_line_on_standard_error(values, capsys, error, code, message):
    assert run(values, raises=error)[0] == code
    assert capsys.readouterr() == ("", message)


def test_unknown_flag(values, capsys):
    assert run(values, "--nam=x") == (2, [])
    assert capsys.readouterr().err.startswith("tool: Unknown command line flag 'nam'")


def test_traceback_on_request_and_for_bugs(values):
    with pytest.raises(ValueError, match="bad"):
        run(values, "--traceback", raises=ValueError("bad"))
    with pytest.raises(ZeroDivisionError):
        run(values, raises=ZeroDivisionError())


def test_require(values):
    values(["tool"])
    with pytest.raises(UsageError, match="missing --name"):
        command_line.require(values, "name", "help")


def test_one_path(tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"")
    assert command_line.one_path([str(path)]) == str(path)
    with pytest.raises(UsageError, match="there are 2"):
        command_line.one_path(["a", "b"])
    with pytest.raises(FileNotFoundError, match="no such file: b"):
        command_line.one_path(["b"])
