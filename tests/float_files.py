"""Small float ``.tflite`` models made by hand, so that tests of rewrites need neither Keras nor the converter."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.float_file.matching import WeightFinder, find_kernels
from tfptq.tflite.model import TFLiteModel


class FloatModel:
    """Operators on float tensors, appended one by one; every method returns tensor indexes.

    Attributes:
        model: the model so far.
    """

    def __init__(self):
        root = schema.ModelT(version=3, operatorCodes=[], metadata=[])
        root.buffers = [schema.BufferT()]
        root.subgraphs = [schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[], name="main")]
        builder = flatbuffers.Builder(1024)
        builder.Finish(root.Pack(builder), b"TFL3")
        self.model = TFLiteModel(bytes(builder.Output()))
        # An empty vector of a flatbuffer is unpacked as None.
        self.model.root.operatorCodes, self.model.subgraph.tensors = [], []
        self.model.subgraph.operators = []

    def input(self, name, shape):
        """An input of the model; its first dimension is dynamic."""
        index = self._tensor(name, shape)
        self.model.subgraph.inputs.append(index)
        return index

    def constant(self, name, values):
        """A constant tensor."""
        return self.model.add_constant(name, np.asarray(values))

    def add(self, kind, inputs, shape, name=None, options=None, version=1):
        """An operator with one output of the given shape."""
        output = self._tensor(name or f"{kind.lower()}_{len(self.model.operators)}", shape)
        self.model.operators.append(self.model.new_operator(kind, inputs, [output], version, options))
        return output

    def finish(self, *outputs):
        """The model with its outputs set and a signature, read back from bytes."""
        self.model.subgraph.outputs = list(outputs)
        signature = schema.SignatureDefT(signatureKey="serving_default", subgraphIndex=0)
        signature.inputs = [self._entry(index) for index in self.model.subgraph.inputs]
        signature.outputs = [self._entry(index) for index in outputs]
        self.model.root.signatureDefs = [signature]
        return TFLiteModel(self.model.to_bytes())

    def _entry(self, index):
        return schema.TensorMapT(name=self.model.name(index), tensorIndex=index)

    def _tensor(self, name, shape):
        tensor = schema.TensorT(name=self.model.unique_name(name), type=schema.TensorType.FLOAT32, buffer=0)
        tensor.shape, tensor.hasRank = np.asarray(shape, np.int32), True
        tensor.shapeSignature = np.asarray([-1, *shape[1:]], np.int32) if shape else None
        self.model.tensors.append(tensor)
        return len(self.model.tensors) - 1


def kernels_of(model, weights=None):
    """The kernels of a model; ``weights`` are the Keras weights to look for, by ``KernelId``."""
    weights = weights or {}
    return find_kernels(model, WeightFinder(weights), weights)


def convolution(graph, source, kernel, bias=None, name="conv", activation=schema.ActivationFunctionType.NONE):
    """A CONV_2D with stride 1 and no padding on an input ``[1, H, W, I]``; kernel ``[O, kh, kw, I]``."""
    options = schema.Conv2DOptionsT(
        padding=schema.Padding.VALID, strideW=1, strideH=1, fusedActivationFunction=activation
    )
    _, height, width, _ = graph.model.shape(source)
    shape = (1, height - kernel.shape[1] + 1, width - kernel.shape[2] + 1, kernel.shape[0])
    bias = np.zeros(len(kernel)) if bias is None else np.asarray(bias)  # float kernels demand one
    constants = {"kernel": kernel, "bias": bias}
    inputs = [
        source,
        *(graph.constant(f"{name}/{part}", value.astype(np.float32)) for part, value in constants.items()),
    ]
    return graph.add("CONV_2D", inputs, shape, name, options)
