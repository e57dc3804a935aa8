import pytest

from tfptq.config import (
    DEFAULT_PRESET,
    PRESETS,
    QuantizationConfig,
    resolve_config,
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_know_their_name_and_survive_json(name):
    config = QuantizationConfig.from_preset(name)
    assert config.name == name
    assert QuantizationConfig.from_json(config.to_json()) == config


def test_a_config_without_arguments_is_the_default_preset():
    assert QuantizationConfig() == QuantizationConfig.from_preset(DEFAULT_PRESET) == resolve_config(None)
    assert QuantizationConfig().label == DEFAULT_PRESET


def test_resolve_config():
    assert resolve_config(None) == QuantizationConfig.from_preset(DEFAULT_PRESET)
    assert resolve_config("w8a8_channel") is not None
    assert resolve_config(QuantizationConfig()) == QuantizationConfig()
    with pytest.raises(ValueError, match=r"preset is 'w9'; it must be one of 'w8a8_shift'"):
        resolve_config("w9")
    with pytest.raises(
        TypeError, match="config is an int; pass a QuantizationConfig, such as .* or the name of a preset"
    ):
        resolve_config(8)
