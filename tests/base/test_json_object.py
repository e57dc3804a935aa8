import json

import pytest

from tfptq.base.json_object import DEEPEST, read_object


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        ' \t\r\n{"a": [1, -2.5e-7, 0.125E+9, true, false, null, {"b": "\\u00e9\\ud83d\\ude00\\n"}]} ',
        '{"a": ' + "9" * 40 + "}",
        '{"brackets": "[[[[{{{{", "quote": "\\"[", "backslash": "\\\\"}',
        '{"a": ' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + "}",
    ],
)
def test_objects_are_read_as_by_json(text):
    assert read_object(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": 01}', "not JSON"),
        ('{"a": "\n"}', "not JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": ' + "9" * 41 + "}", "41 letters"),
        ('{"a": 1' + "0" * 5000 + "}", "5001 letters"),
        ('{"a": 1e100}', "exponent"),
        ('{"a": 1E-001}', "exponent"),
        ('{"a": ' + "[" * DEEPEST + "]" * DEEPEST + "}", "nested deeper"),
        ('{"a": ' + "[" * 10**6, "nested deeper"),
        ('{"a": ["\\ud800"]}', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('{"a": "\\ud800", "a": 1}', "surrogate"),
        ("\ufeff{}", "not JSON"),
    ],
)
def test_others_are_refused(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_object(text)
