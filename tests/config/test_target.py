import json

import pytest

import tfptq
from tfptq.config import TARGETS, QuantizationConfig, Target

OWN = Target(
    "phone",
    layouts={"FULLY_CONNECTED": ("fully_connected_int4",), "CONV_2D": ("fully_connected_int4", "im2col_int4")},
    costs="cpu",
    batch_size=1,
    end_type="int8",
    missing=("GELU",),
)


def test_shipped_targets():
    assert tfptq.Target is Target
    assert list(TARGETS) == ["cpu", "web", "micro", "npu", "any"]
    assert all(target.name == name for name, target in TARGETS.items())
    assert QuantizationConfig().target is TARGETS["cpu"]
    assert TARGETS["cpu"].layouts_for("DEPTHWISE_CONV_2D") == ()
    assert TARGETS["micro"].layouts_for("CONV_2D") == ("int4",)


@pytest.mark.parametrize("name", TARGETS)
def test_a_config_stores_the_name_of_a_shipped_target(name):
    config = QuantizationConfig(target=name)
    assert config.target is TARGETS[name] and config == QuantizationConfig(target=TARGETS[name])
    assert json.loads(config.to_json())["target"] == name
    assert QuantizationConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("own", [OWN, Target("bare"), Target("cpu", narrow_int8=True)])
def test_a_config_stores_all_of_another_target(own):
    config = QuantizationConfig(target=own)
    read = QuantizationConfig.from_json(config.to_json())
    assert read == config and read.target == own and hash(read) == hash(config)
    assert json.loads(config.to_json())["target"]["layouts"] == {kind: list(it) for kind, it in own.layouts.items()}


def test_equality_and_hash_do_not_depend_on_lists_and_order():
    swapped = dict(reversed([(kind, list(names)) for kind, names in OWN.layouts.items()]))
    same = Target("phone", swapped, costs="cpu", batch_size=1, end_type="int8", missing=["GELU"])
    assert same == OWN and hash(same) == hash(OWN)
    assert Target("phone") != OWN
    assert len({*TARGETS.values(), OWN, same}) == len(TARGETS) + 1


def test_a_target_does_not_follow_a_mapping_that_changes():
    layouts = {"CONV_2D": ["int4"]}
    target = Target("own", layouts)
    layouts["CONV_2D"].append("int8")
    layouts["FULLY_CONNECTED"] = ["int4"]
    assert target.layouts == {"CONV_2D": ("int4",)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layouts": {"CONV_2D": ("im2col_int",)}}, r"target.layouts\['CONV_2D'\] is 'im2col_int'.*did you mean 'im2"),
        ({"layouts": {"CONV_2D": "int4"}}, r"target.layouts\['CONV_2D'\] is 'int4'; give a tuple"),
        ({"layouts": {"CONV2D": ("int4",)}}, "operator of target.layouts is 'CONV2D'.*did you mean 'CONV_2D'"),
        ({"layouts": ("int4",)}, "Target.layouts is"),
        ({"end_type": "uint8"}, "target.end_type is 'uint8'; it must be one of 'float32', 'int8'"),
        ({"batch_size": 4}, "target.batch_size is 4; it must be one of None, 1"),
        ({"costs": "gpu"}, "target.costs is 'gpu'"),
        ({"narrow_int8": "yes"}, "Target.narrow_int8 is 'yes'"),
        ({"missing": "GELU"}, "Target.missing is 'GELU'"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Target("own", **fields)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cpus", "target is 'cpus'; it must be one of .*did you mean 'cpu'"),
        (4, "target is 4; give a name .*'micro'.* or a tfptq.Target"),
        ({"name": "own", "layout": {}}, "target field is 'layout'.*did you mean 'layouts'"),
        ({"batch_size": 1}, "a target needs a name"),
        ({"name": 3}, "Target.name is 3"),
    ],
)
def test_a_config_refuses_other_targets(value, message):
    with pytest.raises(ValueError, match=message):
        QuantizationConfig(target=value)
    with pytest.raises(ValueError, match=message):
        QuantizationConfig().replace_json({"target": value})


@pytest.mark.parametrize(
    ("target", "bits", "types"),
    [
        ("cpu", 8, ("float32", "float32")),
        ("cpu", 16, ("float32", "float32")),
        ("micro", 8, ("int8", "int8")),
        ("micro", 16, ("int16", "int16")),
        ("npu", 4, ("int8", "int8")),
        (OWN, 16, ("int16", "int16")),
    ],
)
def test_ends_are_those_of_the_target(target, bits, types):
    assert QuantizationConfig(target=target, activation_bits=bits).interface_types == types


def test_ends_of_the_config_win():
    config = QuantizationConfig(target="micro", input_type="uint8")
    assert config.interface_types == ("uint8", "int8")
    assert config.replace(output_type="float32").interface_types == ("uint8", "float32")
    assert config.replace(target="cpu").interface_types == ("uint8", "float32")
    with pytest.raises(ValueError, match="input_type.*is 'int16'"):
        QuantizationConfig(target="micro", input_type="int16")


@pytest.mark.parametrize("budget", [0.9, 0, -1])
def test_a_latency_below_that_of_int8_is_refused(budget):
    with pytest.raises(ValueError, match="latency_budget is .*; it must be between 1.0"):
        QuantizationConfig(latency_budget=budget)


def test_the_batch_of_a_target_is_for_models_that_leave_it_open():
    assert QuantizationConfig(target="micro").takes_single(None)
    assert not QuantizationConfig(target="micro").takes_single(4)
    assert not QuantizationConfig().takes_single(None)
    assert QuantizationConfig(batch_size=1).takes_single(None) and QuantizationConfig(batch_size=1).takes_single(4)
    with pytest.raises(ValueError, match="batch_size is 2; it must be one of None, 1"):
        QuantizationConfig(batch_size=2)
