import ast
import dataclasses
import inspect
import json

import pytest

from tfptq.config import (
    PRESETS,
    Calibration,
    MixedPrecision,
    PerBlock,
    PerChannel,
    PerTensor,
    QuantizationConfig,
    Rounding,
    override,
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_know_their_name_and_survive_json(name):
    config = QuantizationConfig.from_preset(name)
    assert config.name == name
    assert QuantizationConfig.from_json(config.to_json()) == config


def test_json_round_trip_of_everything():
    config = QuantizationConfig(
        PerChannel(),
        weight_bits=4,
        weight_scale="mse",
        calibration=Calibration("percentile", percentile=99.9, bins=512),
        bias_correction=False,
        overrides=(
            override("stem", weight_bits=8, granularity=PerTensor(), scaler="shift"),
            override("b*", skip=True, multipliers=(1, 2), rounding=Rounding("attention")),
            override("c", granularity=PerBlock(2, 4), scaler="integer"),
        ),
        multipliers=(2, 3, 4, 6),
        input_type="int8",
        output_type="uint8",
    )
    assert QuantizationConfig.from_json(config.to_json()) == config
    assert QuantizationConfig.from_json(config.to_json(indent=None)) == config


def test_type_checkers_see_all_fields():
    tree = ast.parse(inspect.getsource(QuantizationConfig))
    (init,) = (node for node in ast.walk(tree) if getattr(node, "name", None) == "__init__")
    assert [item.arg for item in init.args.args[1:]] == [field.name for field in dataclasses.fields(QuantizationConfig)]


@pytest.mark.parametrize("name", PRESETS)
def test_compact_json_leaves_defaults_out(name):
    config = QuantizationConfig.from_preset(name)
    text = config.to_compact_json()
    assert QuantizationConfig.from_json(text) == config
    assert len(text) < 250
    assert not {"skip", "overrides", "input_type", "metadata"} & json.loads(text).keys()


def test_compact_json_says_what_differs():
    config = QuantizationConfig(
        PerBlock(2, 4),
        "integer",
        4,
        rounding=Rounding("attention"),
        calibration=Calibration("percentile", percentile=99.9),
        mixed_precision=MixedPrecision(average_bits=4.0),
        overrides=(override("stem", weight_bits=8, granularity=PerTensor(), scaler="float", rounding=Rounding()),),
        metadata="none",
    )
    text = config.to_compact_json()
    assert QuantizationConfig.from_json(text) == config
    assert json.loads(text) == {
        "granularity": {"type": "PerBlock", "output_channels": 2, "input_channels": 4},
        "scaler": "integer",
        "weight_bits": 4,
        "rounding": "attention",
        "calibration": {"method": "percentile", "percentile": 99.9},
        "mixed_precision": {"average_bits": 4.0},
        "overrides": [
            {
                "pattern": "stem",
                "changes": {"granularity": {"type": "PerTensor"}, "rounding": {}, "scaler": "float", "weight_bits": 8},
            }
        ],
        "metadata": "none",
    }
    assert QuantizationConfig().to_compact_json() == "{}"


#: Fields of configs in files that leave their defaults out: a default that changes changes what they say.
DEFAULTS = {
    "granularity": {"type": "PerTensor"}, "scaler": "float", "weight_bits": 8, "activation_bits": 8,
    "activation_aware": False, "weight_scale": "max_abs", "statistics_samples": None, "equalize": False,
    "rotate": False, "reorder": False, "mixed_precision": None, "edge_bits": 8, "layout": "size", "multipliers": None,
    "calibration": {"method": "mse", "percentile": 99.99, "bins": 2048}, "bias_correction": True, "skip": False,
    "overrides": [], "input_type": None, "output_type": None, "metadata": "full", "name": "custom",
    "target": "cpu", "batch_size": None, "latency_budget": 1.35,
    "rounding": {
        "method": "nearest", "steps": 500, "tau": 0.5, "learning_rate": None, "damping": 0.2, "most_inputs": None,
    },
}  # fmt: skip


def test_defaults_stay():
    """A new field gets a line here; the others are what files of earlier releases rely on."""
    assert QuantizationConfig().to_dict() == DEFAULTS


def test_json_may_leave_fields_out():
    assert QuantizationConfig.from_json("{}") == QuantizationConfig()
    assert QuantizationConfig.from_json('{"weight_bits": 4}').weight_bits == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"weight_bit": 8}', "config field is 'weight_bit'"),
        ('{"weight_bits": 7}', "weight_bits is 7"),
        ('{"granularity": {"type": "PerPlanet"}}', "granularity.type is 'PerPlanet'"),
        ('{"granularity": {"type": "PerTensor", "size": 1}}', "unexpected shape"),
        ('{"granularity": {}}', "unexpected shape"),
        ('{"multipliers": 3}', "multipliers is 3; give a tuple such as"),
        ('{"multipliers": []}', "multipliers is \\[\\]; give a tuple such as"),
        ('{"multipliers": [2, 17]}', "multipliers is 17; it must be one of 1, 2"),
        (
            '{"granularity": {"type": "PerBlock", "input_blocks": 4}, "scaler": "integer", "weight_bits": 4, '
            '"multipliers": [16]}',
            "with 4 bits at least one must be 15 or less",
        ),
        ('{"multipliers": [2.5]}', "multipliers is 2.5; it must be one of 1, 2"),
        (
            '{"granularity": "PerChannel"}',
            'granularity has an unexpected shape: .PerChannel.; write {"type": "PerChannel',
        ),
        ('{"granularity": {"type": ["PerChannel"]}}', "granularity.type is"),
        ('{"calibration": {"metod": "mse"}}', "calibration has an unexpected shape: Calibration has no 'metod'"),
        ('{"calibration": 3}', "calibration is 3; it must be of the type Calibration"),
        ('{"mixed_precision": {"bits": []}}', r"mixed_precision.bits is \(\); give at least one of 2, 3"),
        ('{"mixed_precision": [4]}', r"mixed_precision is \[4\]; it must be of the type MixedPrecision or None"),
        ('{"overrides": {"a": 4}}', "overrides has an unexpected shape: {'a': 4}; write a list"),
        ('{"overrides": ["a"]}', r"overrides\[0\] has an unexpected shape: 'a'; write"),
        ('{"overrides": [{"pattern": "a"}]}', "unexpected shape"),
        ('{"overrides": [{"pattern": 1, "changes": {}}]}', "unexpected shape"),
        (
            '{"overrides": [{"pattern": "a", "changes": {"pattern": "b"}}]}',
            "field of the override for 'a' is 'pattern'",
        ),
        ('{"overrides": [{"pattern": "a", "changes": {"input_type": "int8"}}]}', "field of the override for 'a'"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig.from_json(text)
