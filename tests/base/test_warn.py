import pytest

from tfptq.base import warn


def test_it_points_to_the_line_outside_of_the_package():
    inside = compile("def call(): warn_caller('read this', RuntimeWarning)", warn.__file__, "exec")
    names = {"warn_caller": warn.warn_caller}
    exec(inside, names)
    with pytest.warns(RuntimeWarning, match="read this") as caught:
        names["call"]()
    assert caught[0].filename == __file__
