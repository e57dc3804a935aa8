import math
from dataclasses import dataclass

import numpy as np
import pytest

from tfptq.base.json_values import from_json, to_json


@dataclass(frozen=True)
class Inner:
    value: float
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    inner: tuple[Inner, ...]
    by_name: dict[str, float]
    best: Inner | None = None


VALUE = Outer(3, (Inner(1.5), Inner(math.inf, "b")), {"a": -math.inf, "b": 2.0}, Inner(0.0))


def test_round_trip():
    assert from_json(Outer, to_json(VALUE), "an outer") == VALUE
    assert '"value": "inf"' in to_json(VALUE)


def test_numbers_of_numpy_become_plain():
    assert from_json(Inner, to_json(Inner(np.float32(0.5))), "an inner") == Inner(0.5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "the text is not valid JSON"),
        ("[]", "the JSON is not an outer of tfptq"),
        ('{"colour": 1}', "unknown fields colour"),
        (to_json(VALUE).replace('"count": 3', '"count": "3"'), "'3' is no int"),
    ],
)
def test_something_else_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(Outer, text, "an outer")
