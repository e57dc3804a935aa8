from dataclasses import dataclass

import numpy as np
import pytest

from tfptq.base.arguments import between, check_types, one_of, plain


@dataclass
class Settings:
    count: int = 1
    share: float | None = None
    names: tuple[str, ...] = ()


def test_a_close_name_is_suggested():
    one_of("method", "mse", ("min_max", "mse"))
    with pytest.raises(
        ValueError, match=r"^method is 'minmax'; it must be one of 'min_max', 'mse'; did you mean 'min_"
    ):
        one_of("method", "minmax", ("min_max", "mse"))
    with pytest.raises(ValueError, match=r"^bits is 7; it must be one of 4, 8$"):
        one_of("bits", 7, (4, 8))
    with pytest.raises(ValueError, match=r"^bits is '8'; it must be one of 4, 8$"):  # a text is no number
        one_of("bits", "8", (4, 8))
    with pytest.raises(ValueError, match=r"^bits is \[8\]; it must be one of 4, 8$"):
        one_of("bits", [8], {4: "four", 8: "eight"})
    with pytest.raises(ValueError, match=r"one of 'min_max', 'mse'$"):
        one_of("method", "planet", ("min_max", "mse"))


def test_numbers_become_pythons_own():
    assert plain([np.int64(1), np.float32(0.5), "a", True]) == (1, 0.5, "a", True)
    settings = Settings(np.int8(3), np.float64(0.5), ["a"])
    check_types(settings)
    assert type(settings.count) is int and type(settings.share) is float and settings.names == ("a",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, "Settings.count is True; it must be of the type int"),
        ({"count": 1.5}, "Settings.count is 1.5; it must be of the type int"),
        ({"share": "all"}, "Settings.share is 'all'; it must be of the type float or None"),
    ],
)
def test_other_types_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_types(Settings(**values))


def test_numbers_outside_are_refused():
    between("steps", 1, 1, 10)
    with pytest.raises(ValueError, match="steps is 0; it must be between 1 and 10"):
        between("steps", 0, 1, 10)
