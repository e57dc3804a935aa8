import pytest

from tfptq.base.text import counted, kind_of, unique_name


@pytest.mark.parametrize(
    ("taken", "name"),
    [((), "conv"), (("other",), "conv"), (("conv",), "conv_1"), (("conv", "conv_1", "conv_3"), "conv_2")],
)
def test_unique_names_are_numbered_from_the_second_on(taken, name):
    assert unique_name("conv", set(taken)) == name


def test_kinds_of_values():
    assert [kind_of(value) for value in (3, "a", None, int, ())] == [
        "an int",
        "a str",
        "None",
        "the class int",
        "a tuple",
    ]


def test_only_one_is_singular():
    assert [counted(count, "scale") for count in (0, 1, 2)] == ["0 scales", "1 scale", "2 scales"]
