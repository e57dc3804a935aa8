import pytest

from tfptq.base.text import counted, kind_of, printable, quoted, shortened, unique_name


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


def test_long_texts_are_shortened():
    assert shortened("a" * 200) == "a" * 200
    assert shortened("a" * 1_000_000) == "a" * 200 + "... (1,000,000 characters)"
    assert quoted("it's\n") == '"it\'s\\n"' and len(quoted("\0" * 10**6)) < 1000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 层", "größe 层"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x7f\x85\u202e\u2028", r"\x7f\x85\u202e\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


def test_ends_of_lines_can_be_kept():
    assert printable("a\n\x1bb\n", keep="\n") == "a\n\\x1bb\n"
