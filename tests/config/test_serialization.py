import json
import re
from pathlib import Path

import pytest
from plain_config import plain_config

from tfptq.config import (
    BASELINE,
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
from tfptq.config.serialization import encode
from tfptq.tflite.stored_config import LEFT_OUT


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


@pytest.mark.parametrize("name", PRESETS)
def test_compact_json_leaves_defaults_out(name):
    config = QuantizationConfig.from_preset(name)
    text = config.to_compact_json()
    assert QuantizationConfig.from_compact_json(text) == config
    assert len(text) < 250
    assert not {"skip", "overrides", "input_type", "metadata"} & json.loads(text).keys()


def test_compact_json_says_what_differs():
    config = plain_config(
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
    assert QuantizationConfig.from_compact_json(text) == config
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
    assert BASELINE.to_compact_json() == "{}"
    assert json.loads(QuantizationConfig().to_compact_json()) == {
        "name": "w8a8_shift",
        "scaler": "shift",
        "weight_scale": "mse",
        "rounding": {"method": "coordinate", "most_inputs": 640},
        "statistics_samples": 64,
        "equalize": True,
    }


#: What the metadata of files leaves out: one that changes changes what the files of earlier releases say.
LEFT_OUT_SO_FAR = {
    "granularity": {"type": "PerTensor"}, "scaler": "float", "weight_bits": 8, "activation_bits": 8,
    "activations": "static",
    "activation_aware": False, "weight_scale": "max_abs", "statistics_samples": None, "equalize": False,
    "rotate": False, "reorder": False, "mixed_precision": None, "edge_bits": 8, "layout": "size", "multipliers": None,
    "calibration": {"method": "mse", "percentile": 99.99, "bins": 2048}, "bias_correction": True, "skip": False,
    "overrides": [], "tail": [], "input_type": None, "output_type": None, "metadata": "full", "name": "custom",
    "target": "cpu", "batch_size": None, "unroll_steps": 0, "latency_budget": 1.35,
    "rounding": {
        "method": "nearest", "steps": 500, "tau": 0.5, "learning_rate": None, "damping": 0.2, "most_inputs": None,
    },
}  # fmt: skip


def test_what_files_leave_out_stays():
    """A new field gets a line here; the others are what files of earlier releases rely on."""
    assert BASELINE.to_dict() == LEFT_OUT == LEFT_OUT_SO_FAR
    parts = {"rounding": Rounding(), "calibration": Calibration(), "granularity": PerTensor()}
    assert all(encode(part) == LEFT_OUT[name] for name, part in parts.items())
    assert encode(MixedPrecision()) == {
        "bits": [2, 3, 4, 5, 6, 8], "by": "coding_length", "average_bits": None, "budget_bytes": None, "ratio": None,
        "eps": 0.1,
    }  # fmt: skip


def test_docs_tell_what_files_leave_out():
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```json\n(\{.*?\})\n```", page, re.DOTALL)
    assert json.loads(text) == LEFT_OUT


#: Metadata of files that were written when a bare ``QuantizationConfig()`` was what they leave out.
WRITTEN_BEFORE = {
    "{}": plain_config(),
    '{"granularity":{"type":"PerChannel"},"target":"any","weight_bits":4}': plain_config(
        PerChannel(), weight_bits=4, target="any"
    ),
    '{"equalize":true,"granularity":{"type":"PerChannel"},"name":"w4a8_channel","rotate":true,"rounding":"attention",'
    '"weight_bits":4,"weight_scale":"output"}': QuantizationConfig.from_preset("w4a8_channel"),
    '{"equalize":true,"name":"w8a8_shift","rounding":{"method":"coordinate","most_inputs":640},"scaler":"shift",'
    '"statistics_samples":64,"weight_scale":"mse"}': QuantizationConfig(),
    '{"name":"w8a8_layer"}': QuantizationConfig.from_preset("w8a8_layer"),
}


@pytest.mark.parametrize("text", WRITTEN_BEFORE)
def test_files_that_were_written_before_mean_what_they_did(text):
    assert QuantizationConfig.from_compact_json(text) == WRITTEN_BEFORE[text]
    assert WRITTEN_BEFORE[text].to_compact_json() == text


def test_json_may_leave_fields_out():
    assert QuantizationConfig.from_json("{}") == QuantizationConfig()
    assert QuantizationConfig.from_json('{"weight_bits": 4}') == QuantizationConfig(weight_bits=4)
    channels = QuantizationConfig.from_json('{"granularity": {"type": "PerChannel"}}')
    assert channels == QuantizationConfig(PerChannel()) and channels.scaler == "float"


def test_json_may_name_a_preset_that_it_starts_from():
    config = QuantizationConfig.from_json('{"preset": "w4a8_channel", "weight_bits": 3}')
    assert config == QuantizationConfig.from_preset("w4a8_channel").replace(weight_bits=3)
    assert config.label == "w4a8_channel (changed: weight_bits)"
    wide = QuantizationConfig.from_json('{"weight_bits": 8, "preset": "w4a8_channel"}')
    assert not wide.rotate


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "it is not JSON"),
        ("[]", "it is not a JSON object; write one such as"),
        ('{"preset": "w4a8_chanel"}', "preset is 'w4a8_chanel'; .*; did you mean 'w4a8_channel'\\?"),
        ('{"preset": ["w4a8_channel"]}', r"preset is \['w4a8_channel'\]; it must be one of"),
        ('{"preset": "w4a8_channel", "rotat": true}', "config field is 'rotat'; .*; did you mean 'rotate'\\?"),
        ('{"weight_bit": 8}', "config field is 'weight_bit'"),
        ('{"weight_bits": 7}', "weight_bits is 7"),
        ('{"granularity": {"type": "PerPlanet"}}', "granularity.type is 'PerPlanet'"),
        ('{"granularity": {"type": "PerTensor", "size": 1}}', "granularity has no field 'size'; PerTensor has none"),
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
        ('{"calibration": {"metod": "mse"}}', "calibration has no field 'metod'; .*; did you mean 'method'\\?"),
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


@pytest.mark.parametrize("granularity", [PerBlock(4, 8), PerBlock(input_blocks=4)])
def test_blocks_survive_json(granularity):
    config = QuantizationConfig(
        granularity, "integer", 4, reorder=True, overrides=(override("a", granularity=PerBlock(input_blocks=2)),)
    )
    assert QuantizationConfig.from_json(config.to_json()) == config
