import dataclasses

import pytest
from search_trials import trial

from tfptq.exploration import pareto
from tfptq.exploration.goal import Goal
from tfptq.exploration.pareto import check_picture, front, write_picture

TRIALS = [trial("w8a8_shift", size=1000, drop=0.001), trial("w4a8_channel", size=600, drop=0.02, error=None)]
GOAL = Goal(0.01)


@pytest.mark.parametrize("name, start", [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_pictures(tmp_path, name, start):
    path = write_picture(tmp_path / name, TRIALS, TRIALS[0], GOAL)
    assert path.read_bytes().startswith(start)


def test_names_of_trials_are_in_the_picture_and_latency_where_it_was_measured(tmp_path):
    text = write_picture(tmp_path / "a.svg", TRIALS, TRIALS[0], GOAL).read_text()
    assert "latency, times that of float" in text and text.count("<!-- w4a8_channel -->") == 2
    untimed = [dataclasses.replace(it, evaluation=dataclasses.replace(it.evaluation, latency=None)) for it in TRIALS]
    text = write_picture(tmp_path / "b.svg", untimed, untimed[0], GOAL).read_text()
    assert "latency" not in text and "<!-- kB -->" in text


def test_front():
    assert front([(3, 1), (1, 5), (2, 2), (2.5, 4), (4, 1)]) == [(1, 5), (2, 2), (3, 1)]


def test_what_cannot_be_drawn_is_told_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in .pdf, .png, .svg"):
        check_picture(tmp_path / "a.gif")
    monkeypatch.setattr(pareto.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        check_picture(tmp_path / "a.png")
