"""The Python reader against the conformance files, and the worked example of the specification against its file."""

import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conformance.bad_files import REFUSED, UNVERIFIED
from conformance.generate import FILES, FOLDER, INPUTS, KEPT, expected

from tfptq.npu.fixed_point import quantize_multiplier
from tfptq.tflite.blocks_schema import blocks_schema
from tfptq.tflite.checks import VerificationError
from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.layouts import LAYOUTS
from tfptq.tflite.metadata import METADATA_KEY, read
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.verify import verify

SPECIFICATION = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


def committed(name):
    return (FOLDER / f"{name}.tflite").read_bytes(), json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*FILES, *KEPT])
def test_files_hold_what_their_json_says(name):
    file, values = committed(name)
    assert expected(file, INPUTS.get(name)) == values
    result = verify(file)
    assert result.undescribed == () and result.digest == (None if name in KEPT else values["digest"])


@pytest.mark.parametrize("name", FILES)
def test_the_generator_makes_the_same_files(name):
    assert expected(FILES[name]().finish(), INPUTS.get(name)) == committed(name)[1]


def test_every_layout_and_kind_of_scales_has_a_file():
    weights = [weight for name in FILES for weight in committed(name)[1]["weights"]]
    assert {weight["layout"] for weight in weights} == {layout.format_name for layout in LAYOUTS}
    assert {weight["scale_kind"] for weight in weights} == {"float", "integer", "shift"}
    assert {weight["granularity"] for weight in weights} == {"tensor", "channel", "block"}


@pytest.mark.parametrize("name", [*FILES, *KEPT])
def test_stock_runtimes_run_the_files(name):
    interpreter = Interpreter(model_content=committed(name)[0])
    interpreter.allocate_tensors()
    interpreter.invoke()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_files_are_refused(name):
    with pytest.raises(FormatError):
        read((FOLDER / "refused" / f"{name}.tflite").read_bytes())


@pytest.mark.parametrize("name", UNVERIFIED)
def test_unverified_files_are_read_and_not_verified(name):
    file = (FOLDER / "unverified" / f"{name}.tflite").read_bytes()
    assert read(file) is not None
    with pytest.raises(VerificationError):
        verify(file)


@pytest.mark.parametrize(("folder", "files"), [("refused", REFUSED), ("unverified", UNVERIFIED)])
def test_reasons_are_those_of_the_generator(folder, files):
    reasons = json.loads((FOLDER / folder / "reasons.json").read_text(encoding="utf-8"))
    assert reasons == {name: reason for name, (reason, _) in files.items()}
    assert {path.stem for path in (FOLDER / folder).glob("*.tflite")} == set(files)


# The specification.


def test_the_worked_example_is_that_of_its_file():
    file, values = committed("worked_example")
    example = SPECIFICATION.split("## A worked example")[1].split("\n## ")[0]
    model = read_model(file)
    message = read_message(bytes(model.buffers[dict(model.metadata)[METADATA_KEY]]), blocks_schema())
    assert message.weights.tobytes().hex(" ") in example
    (weight,), run = values["weights"], values["run"]
    kernel = model.subgraphs[0].tensors[weight["tensor"]].values()
    rows = np.reshape(weight["codes"], (4, 4))
    for row in (*rows, *kernel, np.array(run["input"]["codes"]), np.array(run["output"]["codes"])):
        assert f"`[{', '.join(map(str, row))}]`" in example, row
    scales = np.float32(weight["scales"])
    assert all(f"{value:g}" in example for value in scales.reshape(-1))


def test_enumerations_are_those_of_the_schema():
    for name, (_, members) in blocks_schema().enums.items():
        for member, number in members.items():
            assert f"| `{name}` | `{member}` | {number} |" in SPECIFICATION
    for table in ("BlockMetadata", "TensorBlocks"):
        rows = SPECIFICATION.split(f"| slot | field of `{table}` |")[1].split("\n\n")[0]
        for field in blocks_schema().tables[table]:
            assert f"| {field.slot} | `{field.name}` |" in rows


@pytest.mark.parametrize("resolver", [OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN])
def test_sixteen_bit_activations_round_as_specified(resolver):
    file, values = committed("int16_activations")
    (weight,), graph = values["weights"], read_model(file).subgraphs[0]
    operator = graph.operators[0]
    source, bias, result = (
        graph.tensors[index] for index in (operator.inputs[0], operator.inputs[2], operator.outputs[0])
    )
    interpreter = Interpreter(model_content=file, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).integers(-(2**15), 2**15, source.shape).astype(np.int16)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    codes = np.reshape(weight["codes"], weight["shape"]).astype(np.int64)
    sums = x.astype(np.int64) @ codes.T + bias.values()
    assert len(np.unique(found)) > 6
    for channel, (scale,) in enumerate(weight["scales"]):
        real = float(source.scale[0]) * scale / float(result.scale[0])
        mantissa, exponent = quantize_multiplier(real)
        short = 0x7FFF if mantissa >= 0x7FFF0000 else (mantissa + 2**15) >> 16
        shift = 15 - exponent
        expected_codes = ((sums[:, channel] * short + 2 ** (shift - 1)) >> shift).clip(-(2**15), 2**15 - 1)
        assert found[:, channel].tolist() == expected_codes.tolist()
