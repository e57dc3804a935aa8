import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from layout_files import emitted
from plain_config import plain_config

from tfptq.config import PerBlock
from tfptq.tflite.layouts import COMPOSITE
from tfptq.tflite.model import TFLiteModel

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


def test_composites_say_what_they_hold():
    file, _, _ = emitted("conv", COMPOSITE, plain_config(PerBlock(2, 3), "integer", 3))
    model = TFLiteModel(file)
    (operator,) = [op for op in model.operators if model.operator_name(op) == "STABLEHLO_COMPOSITE"]
    options = operator.builtinOptions2
    assert options.name == b"tfptq.block_conv_2d" and options.version == 1
    assert flexbuffers.Loads(bytearray(options.compositeAttributes)) == {
        "bits": 3,
        "block_inputs": 3,
        "block_outputs": 2,
        "scale_kind": "integer",
    }
    inner = model.root.subgraphs[options.decompositionSubgraphIndex]
    kinds = [model.operator_name(operator) for operator in inner.operators]
    assert kinds == ["DEQUANTIZE", "MUL", "RESHAPE", "CONV_2D"]
    codes = inner.tensors[inner.operators[0].inputs[0]]
    assert codes.type == schema.TensorType.INT4
