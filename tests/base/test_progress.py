import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import types

import pytest

from tfptq.base import progress as module
from tfptq.base.progress import Progress

PLAN = {"read": "reading the model", "fit": "fitting weights", "write": "writing the file"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def frames(text):
    """What the line of a terminal shows, one after the other."""
    return [frame.strip() for frame in re.split(r"[\r\n]|\x1b\[A", text) if frame.strip()]


def test_terminal_shows_name_and_count():
    stream = Terminal()
    with Progress(stream=stream).step("calibrate", total=4) as advance:
        advance(3)
        advance()
    assert frames(stream.getvalue())[0].startswith("calibrate   0%|") and "4/4" not in frames(stream.getvalue())[0]
    assert stream.getvalue().endswith("\r") and stream.getvalue().split("\r")[-2].strip() == ""  # it is gone


def test_one_bar_counts_the_steps_of_the_plan(monkeypatch):
    monkeypatch.setattr(module.tqdm, "mininterval", 0, raising=False)
    stream = Terminal()
    with Progress(stream=stream, plan=PLAN) as steps:
        with steps.step("read"):
            pass
        with steps.step("fit", total=2) as advance:
            advance()
        with steps.step("write") as advance:
            advance(3)
    shown = frames(stream.getvalue())
    assert shown[0] == "step 1 of 3: reading the model ..."
    assert any(frame.startswith("step 2 of 3: fitting weights   0%|") for frame in shown)
    assert shown[-1].startswith("step 3 of 3: writing the file ...") and "0it" not in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_a_step_that_is_left_out_keeps_its_number():
    stream = Terminal()
    with Progress(stream=stream, plan=PLAN) as steps, steps.step("write"):
        pass
    assert frames(stream.getvalue())[0] == "step 3 of 3: writing the file ..."


def test_a_step_that_is_not_in_the_plan():
    with Progress(stream=Terminal(), plan=PLAN) as steps, pytest.raises(ValueError), steps.step("paint"):
        pass


@pytest.mark.parametrize("enabled, stream", [(False, Terminal()), (True, io.StringIO())])
def test_quiet_when_switched_off_or_not_on_a_terminal(enabled, stream):
    progress = Progress(enabled, stream)
    with progress.step("calibrate", total=2) as advance:
        advance(2)
    assert stream.getvalue() == "" and not progress.enabled


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_program_without_standard_error(monkeypatch, stream):
    if stream:
        stream = Terminal()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress().step("calibrate", total=2) as advance:
        advance(2)


def test_a_notebook_has_a_bar_though_its_standard_error_is_no_terminal(monkeypatch):
    kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(config={"IPKernelApp": {}}))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    stream = io.StringIO()
    with Progress(stream=stream).step("calibrate", total=2):
        pass
    assert "calibrate" in stream.getvalue()


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace(config={})])
def test_other_shells_are_no_notebooks(monkeypatch, shell):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert not module.in_notebook()


ON_A_TERMINAL = """
import os, sys
from tfptq.base.progress import Progress
from tfptq.base.quiet import quiet
with Progress(plan={"fit": "fitting weights"}) as steps:
    with quiet(), steps.step("fit", total=2):
        os.write(2, b"noise")
print("done", file=sys.stderr)
"""


def test_a_bar_is_drawn_on_the_screen_while_native_lines_are_turned_away():
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stderr=inner, check=True, env=environment)
    os.close(inner)
    screen = os.read(outer, 100_000).decode()
    os.close(outer)
    assert "step 1 of 1: fitting weights   0%|" in screen and "noise" not in screen
    assert max(map(len, frames(screen))) <= 80 and frames(screen)[-1] == "done"


def test_seconds_add_up_by_name(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 11.0, 20.0, 20.5])
    monkeypatch.setattr("tfptq.base.progress.time.perf_counter", lambda: next(clock))
    progress = Progress(False)
    for name in ("fit", "write", "fit"):
        with progress.step(name):
            pass
    assert progress.seconds == {"fit": 2.5, "write": 1.0}


def test_errors_pass_through():
    with pytest.raises(KeyError), Progress(False).step("fit"):
        raise KeyError("inside")
