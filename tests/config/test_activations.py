"""What ``activations`` goes with."""

import pytest

from tfptq.config import PRESETS, MixedPrecision, PerChannel, QuantizationConfig, Rounding, override

DYNAMIC = QuantizationConfig(PerChannel(), activations="dynamic")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activations": "magic"}, "activations is 'magic'"),
        ({"activations": "dynamic", "target": "micro"}, "target 'micro', which has no kernels.*'cpu', 'web', 'any'"),
        ({"activations": "float", "target": "npu"}, r"leaves inputs and outputs in float32, not \('int8', 'int8'\)"),
        ({"activations": "dynamic", "input_type": "int8"}, "take input_type='float32'"),
        ({"activations": "dynamic", "activation_bits": 16}, "activation_bits=16 has no effect"),
        ({"weight_bits": 16}, "weight_bits=16 are float16 numbers, which need activations='float'"),
        (
            {"activations": "dynamic", "activation_aware": True, "rounding": "coordinate"},
            "activation_aware=True has no effect: activations of the file are float",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig(PerChannel(), **fields)


def test_layers_in_float_have_no_ends():
    config = QuantizationConfig(
        PerChannel(), target="npu", overrides=(override("head", activations="float", weight_bits=16),)
    )
    assert config.for_layer("head").interface_types == ("float32", "float32")
    assert config.for_layer("other").interface_types == ("int8", "int8")
    with pytest.raises(ValueError, match="layer 'head' gets values.*target 'npu', which has no kernels"):
        config.replace(overrides=(override("head", activations="dynamic"),)).for_layer("head")


def test_presets_of_float_activations_do_without_samples():
    for name, preset in PRESETS.items():
        if preset.activations == "static":
            with pytest.raises(ValueError, match="dataset=None goes with float activations alone"):
                preset.without_samples()
            continue
        found = QuantizationConfig.from_preset(name).without_samples()
        scale = "mse" if preset.weight_bits >= 8 else "max_abs"
        assert (found.weight_scale, found.rounding, found.bias_correction) == (scale, Rounding(), False)
        assert found.weight_bits == preset.weight_bits and found.granularity == preset.granularity


def test_overrides_do_without_samples_too():
    own = override("head", weight_scale="output", rounding=Rounding("attention"), weight_bits=4)
    (found,) = DYNAMIC.replace(overrides=(own,)).without_samples().overrides
    assert dict(found.changes) == {"weight_scale": "max_abs", "rounding": Rounding(), "weight_bits": 4}
    with pytest.raises(ValueError, match="dataset=None goes with float activations alone"):
        DYNAMIC.replace(overrides=(override("head", activations="static"),)).without_samples()
    with pytest.raises(ValueError, match="by='coding_length'"):
        DYNAMIC.replace(mixed_precision=MixedPrecision(by="sensitivity", ratio=0.6)).without_samples()
