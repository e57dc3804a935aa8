import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfptq.base.quiet import LOG, SHOWN, overhear, quiet, quiet_import, real_standard_error


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    monkeypatch.delenv(LOG, raising=False)


def native(text):
    """Write as C++ does."""
    os.write(2, text.encode())


def notes_of(raised):
    return getattr(raised.value, "__notes__", [])


def test_native_lines_are_held_back_and_python_outside_is_not(capfd):
    print("before", file=sys.stderr)
    with quiet() as log:
        native("noise\n")
        print("summary", file=log)
    native("after\n")
    assert capfd.readouterr() == ("", "before\nafter\n")


def test_standard_output_is_left_alone(capfd):
    with quiet():
        os.write(1, b"result\n")
    assert capfd.readouterr() == ("result\n", "")


def test_the_log_that_the_variable_names_grows(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(LOG, str(tmp_path / "native.log"))
    for number in range(2):
        with quiet() as log:
            native(f"noise {number}\n")
            print(f"summary {number}", file=log)
    assert (tmp_path / "native.log").read_text() == "noise 0\nsummary 0\nnoise 1\nsummary 1\n"
    assert capfd.readouterr().err == ""


def test_a_log_that_cannot_be_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(LOG, str(tmp_path / "missing" / "native.log"))
    with pytest.raises(OSError, match=r"the log that TFPTQ_LOG names cannot be written: .*missing"), quiet():
        pass
    native("still here")
    assert capfd.readouterr().err == "still here"


@pytest.mark.parametrize("with_log", [False, True])
def test_an_exception_has_what_was_written_in_its_own_part(tmp_path, monkeypatch, capfd, with_log):
    if with_log:
        monkeypatch.setenv(LOG, str(tmp_path / "native.log"))
    with quiet():
        native("earlier\n")
        with pytest.raises(ZeroDivisionError) as raised, quiet():
            native("the cause\n")
            raise ZeroDivisionError
        native("later\n")
    assert notes_of(raised) == ["TensorFlow and LiteRT wrote to standard error:\nthe cause"]
    assert capfd.readouterr().err == ""


def test_an_exception_has_the_note_once_and_short():
    with pytest.raises(KeyError) as raised, quiet(), quiet():
        native("first " + "x" * 3 * SHOWN + " last")
        raise KeyError
    (note,) = notes_of(raised)
    assert note.split("\n")[1].startswith("first x") and note.endswith("x last") and len(note) < 2 * SHOWN + 100


def test_an_exception_without_lines_has_no_note():
    with pytest.raises(KeyError) as raised, quiet():
        raise KeyError
    assert notes_of(raised) == []


def test_many_threads_in_each_other(capfd):
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        for _ in range(200):
            with quiet(), quiet():
                native(f"noise {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    native("after")
    assert capfd.readouterr().err == "after"


def test_no_descriptor_is_left_open():
    def count():
        return len(os.listdir("/dev/fd"))

    before = count()
    for _ in range(20):
        with quiet(), quiet():
            pass
    assert count() == before


def test_the_real_standard_error_is_that_of_the_screen(capfd):
    with quiet(), real_standard_error() as outer:
        print("bar", file=outer)
    with real_standard_error() as outer:
        print("bar", file=outer)
    assert capfd.readouterr().err == "bar\nbar\n"


CLOSED = """
import os, sys
os.close(2)
from tfptq.base.quiet import quiet, real_standard_error
for _ in range(2):
    with quiet():
        os.write(2, b"noise")
        assert real_standard_error() is None
    try:
        os.fstat(2)
    except OSError:
        print("closed again")
try:
    with quiet():
        os.write(2, b"the cause")
        raise ValueError
except ValueError as error:
    print(error.__notes__)
"""


@pytest.mark.parametrize("log", [None, "native.log"])
def test_closed_standard_error(tmp_path, log):
    environment = {name: value for name, value in os.environ.items() if name != LOG} | ({LOG: log} if log else {})
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", CLOSED]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=tmp_path)
    assert done.stdout.startswith("closed again\nclosed again\n") and "the cause" in done.stdout
    assert log is None or (tmp_path / log).read_text() == "noisenoisethe cause"


@pytest.mark.parametrize("level", [None, "0"])
def test_an_import_sets_the_level_of_tensorflow_unless_it_is_set(monkeypatch, capfd, level):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with pytest.raises(ImportError), quiet_import():
        native("native noise")
        raise ImportError("shown afterwards")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (level or "3") and capfd.readouterr().err == ""


def test_an_import_leaves_the_level_of_a_program_that_has_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with quiet_import():
        pass
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ


def test_what_native_code_writes_can_be_read(capfd):
    with overhear() as outer:
        os.write(2, b"first\n")
        with overhear() as inner:
            os.write(2, b"second\n")
            assert inner() == "second\n"
        assert outer() == "first\nsecond\n"
    assert capfd.readouterr().err == ""
