import io

import pytest

from tfptq.base.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_shows_name_and_count():
    stream = Terminal()
    with Progress(stream=stream).step("calibrate", total=4) as advance:
        advance(3)
        advance()
    assert "calibrate" in stream.getvalue() and "4/4" in stream.getvalue()


@pytest.mark.parametrize("enabled, stream", [(False, Terminal()), (True, io.StringIO())])
def test_quiet_when_switched_off_or_not_on_a_terminal(enabled, stream):
    progress = Progress(enabled, stream)
    with progress.step("calibrate", total=2) as advance:
        advance(2)
    assert stream.getvalue() == "" and not progress.enabled


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
