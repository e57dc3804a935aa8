"""Every row of the operator table is consistent, and decides about operators as it says."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from tfptq.ops import table
from tfptq.ops.operator_spec import Input, OperatorSpec, OutputGrid
from tfptq.ops.table import FUSED_FUNCTIONS, OPERATORS, spec_of

SPECS = list(OPERATORS.values())
INTEGER = [spec for spec in SPECS if spec.output_grid is not None]
WEIGHTED = [spec for spec in SPECS if spec.kernel is not None]
TWINS = [spec for spec in SPECS if spec.twin is not None]
DATA = (Input.DATA, Input.SYMMETRIC)
BUILTIN = {name for name in vars(schema.BuiltinOperator) if name.isupper()}
OPTIONS = [getattr(schema, name) for name in dir(schema) if name.endswith("OptionsT")]


def rows(specs):
    return pytest.mark.parametrize("spec", specs, ids=lambda spec: spec.name)


def test_there_is_one_row_for_each_operator():
    assert len(table._ROWS) == len(OPERATORS)


@rows(SPECS)
def test_a_row_is_of_an_operator_of_the_schema(spec):
    assert spec.name in BUILTIN
    assert spec_of(spec.name) is spec


@rows(SPECS)
def test_inputs(spec):
    assert any(kind in DATA for kind in spec.inputs)
    assert not spec.any_number or len(spec.inputs) == 1
    assert not (spec.moves or spec.clamp or spec.reads_shape or spec.converts) or spec.inputs[0] is Input.DATA
    assert not spec.arithmetic or spec.inputs == (Input.DATA, Input.DATA)


@rows(SPECS)
def test_traits_go_together(spec):
    assert spec.moves or not spec.views
    assert spec.fusible or spec.clamp is None
    assert spec.output_grid is None or not (spec.reads_shape or spec.converts)
    assert spec.output_grid is OutputGrid.OWN or not spec.arithmetic
    assert spec.output_grid in (OutputGrid.SAME, None) or not spec.moves
    assert spec.obstacle is None or spec.output_grid is not None


@rows(INTEGER)
def test_versions_of_integer_operators(spec):
    assert 1 <= spec.version(8) <= (spec.int16 or spec.int8) and spec.int8 <= (spec.int4 or spec.int8)
    assert spec.int4 is None or spec.kernel is not None


@rows([spec for spec in INTEGER if spec.output_grid is OutputGrid.SAME])
def test_a_grid_is_shared_with_the_one_input(spec):
    assert [kind for kind in spec.inputs if kind in DATA] == [Input.DATA]


@rows([spec for spec in SPECS if spec.output_grid is None and not spec.converts])
def test_float_operators_have_no_versions_for_integers(spec):
    packed = {"EMBEDDING_LOOKUP": 4}  # its table may be INT4, and what it gives is float
    assert (spec.int8, spec.int16, spec.int4, spec.fixed_grids) == (None, None, packed.get(spec.name), {})


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_missing_version_is_refused(bits):
    with pytest.raises(ValueError, match=f"EXP has no version for int{bits} in tfptq/ops/table.py"):
        OPERATORS["EXP"].version(bits)


@rows([spec for spec in SPECS if spec.fixed_grids])
def test_fixed_grids_are_known_for_all_widths_that_have_a_kernel(spec):
    assert spec.output_grid is OutputGrid.OWN
    assert set(spec.fixed_grids) == {8, *([16] if spec.int16 else [])}
    for bits, grid in spec.fixed_grids.items():
        assert grid.bits == bits
        assert bits == 8 or grid.zero_point == 0


@rows([spec for spec in SPECS if spec.options])
def test_options_are_those_of_the_schema(spec):
    for option, version in spec.options.items():
        assert any(hasattr(options(), option) for options in OPTIONS)
        assert version >= 1


@rows(WEIGHTED)
def test_weighted_inputs(spec):
    for kernel, bias, data in spec.kernels:
        assert spec.inputs[kernel] is Input.KERNEL
        assert spec.inputs[bias] is Input.BIAS
        assert spec.inputs[data] in (Input.DATA, Input.STATE)
    assert len(spec.kernels) == spec.inputs.count(Input.KERNEL)
    owners = [place for place in spec.kernels if spec.owns_bias(place)]
    assert len(owners) == spec.inputs.count(Input.BIAS) == len({place.bias for place in owners})


@rows([spec for spec in WEIGHTED if not spec.places])
def test_operators_with_one_kernel(spec):
    kernel, bias, data = spec.weights
    assert kernel == 1  # wherever the activation stands
    assert spec.inputs[data] is Input.DATA
    assert sorted(spec.inputs.count(kind) for kind in (Input.KERNEL, Input.BIAS, Input.DATA)) == [1, 1, 1]
    assert bias == len(spec.inputs) - 1  # it may be missing


@rows([spec for spec in SPECS if spec.kernel is None])
def test_kernels_have_a_layout(spec):
    assert Input.KERNEL not in spec.inputs
    assert Input.BIAS not in spec.inputs
    with pytest.raises(ValueError, match=f"{spec.name} has no kernel"):
        spec.kernel_view((1, 2))


@given(st.sampled_from(WEIGHTED), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_kernel_views_lead_there_and_back(spec, sizes):
    shape = tuple(sizes[: sum(map(len, spec.kernel))])
    values = np.arange(np.prod(shape)).reshape(shape)
    view = spec.kernel_view(shape)
    assert view.to_view(values).shape == view.view_shape
    np.testing.assert_array_equal(view.from_view(view.to_view(values)), values)


def test_activation_functions_that_operators_fuse():
    codes = {name: code for name, code in vars(schema.ActivationFunctionType).items() if name.isupper()}
    assert {code: spec.name for code, spec in FUSED_FUNCTIONS.items()} == {
        code: name for name, code in codes.items() if name not in ("NONE", "SIGN_BIT")
    }
    for spec in FUSED_FUNCTIONS.values():
        low, high = spec.clamp or (-1.0, 1.0)
        assert high is None or low < high


@rows(TWINS)
def test_twins_exist_and_take_the_inputs(spec):
    from tfptq.ops.tensorflow import twin_of

    twin = twin_of(spec)
    inspect.signature(twin).bind(object(), *spec.inputs)


def test_an_operator_without_a_twin_is_refused():
    from tfptq.ops.tensorflow import twin_of

    with pytest.raises(ValueError, match="LOG_SOFTMAX has no twin in TensorFlow"):
        twin_of(OPERATORS["LOG_SOFTMAX"])


@given(st.sampled_from(SPECS), st.lists(st.integers(-1, 9), max_size=6))
def test_data_inputs_are_those_of_the_row_that_are_there(spec, inputs):
    found = spec.data_inputs(SimpleNamespace(inputs=inputs, outputs=[], builtinOptions=None))
    assert found == sorted(set(found))
    for at, index in enumerate(inputs):
        known = spec.any_number or at < len(spec.inputs)
        kind = spec.inputs[0 if spec.any_number else at] if known else None
        assert (at in found) == (kind in DATA and index >= 0)
    assert set(spec.symmetric_inputs) <= set(range(len(spec.inputs)))


class Tensors:
    """A model of nothing but tensors; those of negative numbers are missing.

    Args:
        constants: indexes of constants.
        integers: indexes of tensors that are no floats.
        dimensions: of every tensor.
    """

    def __init__(self, constants=(), integers=(), dimensions=4):
        self.constants, self.integers, self.dimensions = constants, integers, dimensions

    def operator_name(self, operator):
        raise NotImplementedError

    def constant(self, index):
        raise NotImplementedError

    def is_constant(self, index):
        return index in self.constants

    def is_float(self, index):
        return index >= 0 and index not in self.integers

    def shape(self, index):
        return (1,) * self.dimensions


RESULT = 100
LSTM_OPTIONS = schema.UnidirectionalSequenceLSTMOptionsT()
LSTM_OPTIONS.fusedActivationFunction = schema.ActivationFunctionType.TANH


def reason(name, bits=8, constants=None, **tensors):
    """Reason to leave an operator float, which reads tensors 0, 1, ...; by default its kernel is constant."""
    spec = spec_of(name)
    inputs = list(range(max(len(spec.inputs), 1)))
    inputs = [
        -1 if kind is Input.MISSING else at for at, kind in zip(inputs, spec.inputs or (Input.DATA,), strict=True)
    ]
    operator = SimpleNamespace(inputs=inputs, outputs=[RESULT], builtinOptions=LSTM_OPTIONS if spec.states else None)
    if constants is None:
        constants = [at for at, kind in enumerate(spec.inputs) if kind in (Input.KERNEL, Input.BIAS)]
        constants += [1] if name == "PRELU" else []
    return spec.reason_to_stay_float(Tensors(constants, **tensors), operator, bits)


@pytest.mark.parametrize("bits", [8, 16])
@rows(SPECS)
def test_operators_on_activations_run_on_integers_if_there_is_a_kernel(spec, bits):
    if spec.reads_shape:
        expected = None
    elif spec.output_grid is None:
        expected = f"{spec.name} has no integer rule"
    elif bits == 16 and spec.int16 is None:
        expected = f"{spec.name} has no kernel for 16-bit activations"
    else:
        expected = None
    assert reason(spec.name, bits) == expected


def test_an_unknown_operator_stays_float():
    assert spec_of("NO_SUCH_OPERATOR").name == "NO_SUCH_OPERATOR"
    assert reason("NO_SUCH_OPERATOR") == "NO_SUCH_OPERATOR has no integer rule"


@rows(SPECS)
def test_operators_that_touch_no_floats_are_left_alone(spec):
    assert reason(spec.name, integers=[*range(24), RESULT]) is None


@rows([spec for spec in INTEGER if 0 not in spec.plain_results])
def test_floats_and_integers_do_not_mix(spec):
    assert reason(spec.name, integers=[RESULT]) == f"{spec.name} mixes float32 with other types"


@rows([spec for spec in INTEGER if 0 in spec.plain_results])
def test_results_that_are_no_activations_may_be_of_another_type(spec):
    assert reason(spec.name, integers=[RESULT]) is None


@rows(INTEGER)
def test_results_of_constants_stay_float(spec):
    assert reason(spec.name, constants=range(9)) == f"{spec.name} reads values of constants only"


@rows(WEIGHTED)
def test_kernels_must_be_constant(spec):
    assert reason(spec.name, constants=[]) == f"{spec.name} with a kernel that is computed"


def test_obstacles():
    assert reason("PRELU", constants=[]) == "PRELU with a slope that is computed"
    assert reason("SQUARED_DIFFERENCE", dimensions=5) == "SQUARED_DIFFERENCE of more than 4 dimensions"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fusedActivationFunction": schema.ActivationFunctionType.RELU}, "another function than tanh"),
        ({"timeMajor": True}, "time as the first axis"),
    ],
)
def test_other_lstm_operators_stay_float(options, words):
    spec = spec_of("UNIDIRECTIONAL_SEQUENCE_LSTM")
    inputs = [-1 if kind is Input.MISSING else at for at, kind in enumerate(spec.inputs)]
    constants = [at for at, kind in enumerate(spec.inputs) if kind in (Input.KERNEL, Input.BIAS)]

    def found(inputs, **changes):
        own = SimpleNamespace(**{**vars(LSTM_OPTIONS), **changes})
        operator = SimpleNamespace(inputs=inputs, outputs=[RESULT], builtinOptions=own)
        return spec.reason_to_stay_float(Tensors(constants), operator, 8)

    assert found(inputs) is None
    assert words in found(inputs, **options)
    assert found([*inputs[:9], 9, *inputs[10:]]).endswith("with weights that no integer rule knows")  # a peephole
    assert found([0, -1, *inputs[2:]]).endswith("with a kernel that is computed")  # no input gate


def test_an_empty_row_knows_nothing():
    spec = OperatorSpec("ANY")
    assert spec.data_inputs(SimpleNamespace(inputs=[0, 1], outputs=[2], builtinOptions=None)) == []
    assert spec.symmetric_inputs == ()
