// Checks of a .tflite file before anything of it is used; tfptq/tflite/model_reader.py checks the same.

#ifndef TFPTQ_MODEL_CHECKS_H_
#define TFPTQ_MODEL_CHECKS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "model_schema.h"

namespace tfptq {

// The bytes of a buffer, which in files above 2 GB lie behind the message.
inline Bytes BufferBytes(const Buffer& buffer, Bytes file) {
  if (buffer.offset <= 1) return buffer.data;
  if (buffer.offset > file.size || buffer.size > file.size - buffer.offset) {
    throw FormatError("a buffer leaves the file");
  }
  return {file.data + buffer.offset, static_cast<size_t>(buffer.size)};
}

// Bits of an element of a constant; 0 for types whose constants are not checked.
inline uint64_t TypeBits(TensorType type) {
  switch (type) {
    case TensorType::INT2: return 2;
    case TensorType::INT4: case TensorType::UINT4: return 4;
    case TensorType::INT8: case TensorType::UINT8: case TensorType::BOOL: return 8;
    case TensorType::FLOAT16: case TensorType::BFLOAT16: case TensorType::INT16: case TensorType::UINT16: return 16;
    case TensorType::FLOAT32: case TensorType::INT32: case TensorType::UINT32: return 32;
    case TensorType::FLOAT64: case TensorType::INT64: case TensorType::UINT64: return 64;
    default: return 0;
  }
}

// Checks the parts of one file.
class ModelCheck {
 public:
  ModelCheck(const Model& model, Bytes file) : model_(model), file_(file) {}

  void Run() const {
    if (model_.version != 3) throw FormatError("the .tflite schema version is not 3");
    if (model_.subgraphs.empty()) throw FormatError("the file has no subgraph");
    for (const Buffer& buffer : model_.buffers) BufferBytes(buffer, file_);
    for (const Metadata& entry : model_.metadata) Index(entry.buffer, model_.buffers.size(), "buffer of the metadata");
    for (const SubGraph& graph : model_.subgraphs) CheckGraph(graph);
    for (const SignatureDef& entry : model_.signature_defs) {
      Index(entry.subgraph_index, model_.subgraphs.size(), "subgraph of a signature");
      const size_t count = model_.subgraphs[entry.subgraph_index].tensors.size();
      for (const TensorMap& name : entry.inputs) Index(name.tensor_index, count, "tensor of a signature");
      for (const TensorMap& name : entry.outputs) Index(name.tensor_index, count, "tensor of a signature");
    }
  }

 private:
  static constexpr size_t kMostAxes = 32;

  static void Index(int64_t index, size_t count, const char* what, int64_t lowest = 0) {
    if (index < lowest || index >= static_cast<int64_t>(count)) {
      throw FormatError(std::string("a ") + what + " is outside of " + std::to_string(count));
    }
  }

  void CheckGraph(const SubGraph& graph) const {
    const size_t count = graph.tensors.size();
    for (const Tensor& tensor : graph.tensors) CheckTensor(tensor, count);
    for (const Operator& operation : graph.operators) {
      Index(operation.opcode_index, model_.operator_codes.size(), "code of an operator");
      for (const int32_t index : operation.inputs) Index(index, count, "input of an operator", -1);
      for (const int32_t index : operation.outputs) Index(index, count, "output of an operator");
    }
    for (const int32_t index : graph.inputs) Index(index, count, "input of a subgraph");
    for (const int32_t index : graph.outputs) Index(index, count, "output of a subgraph");
  }

  void CheckTensor(const Tensor& tensor, size_t count) const {
    const auto require = [&tensor](bool holds, const char* problem) {
      if (!holds) throw FormatError("the tensor " + tensor.name + " " + problem);
    };
    Index(tensor.buffer, model_.buffers.size(), "buffer of a tensor");
    const size_t axes = tensor.shape.size(), open = tensor.shape_signature.size();
    require(axes <= kMostAxes && (open == 0 || open == axes), "has too many axes, or not those of its signature");
    for (const int32_t size : tensor.shape) require(size >= 0, "has an impossible shape");
    const Bytes data = BufferBytes(model_.buffers[tensor.buffer], file_);
    const uint64_t bits = TypeBits(tensor.type);
    require(data.size == 0 || bits == 0 || HasBytes(tensor.shape, bits, data.size), "has bytes that its shape has not");
    const QuantizationParameters& found = tensor.quantization;
    const size_t scales = found.scale.size(), zeros = found.zero_point.size();
    require(zeros == 0 || zeros == scales, "has as many scales as no zero points");
    if (scales > 1) {
      Index(found.quantized_dimension, axes, "quantized dimension of a tensor");
      require(static_cast<size_t>(tensor.shape[static_cast<size_t>(found.quantized_dimension)]) == scales,
              "has more or fewer scales than its axis");
    }
    const auto* blocks = std::get_if<BlockwiseQuantization>(&found.details);
    if (blocks != nullptr) Index(blocks->scales, count, "tensor of block scales");
  }

  // Whether so many bytes hold the elements of a shape, all sizes of which are at least 0.
  static bool HasBytes(const std::vector<int32_t>& shape, uint64_t bits, uint64_t size) {
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return size == 0;
    const uint64_t most = 8 * size / bits;
    uint64_t elements = 1;
    for (const int32_t axis : shape) {
      if (elements > most / static_cast<uint64_t>(axis)) return false;
      elements *= static_cast<uint64_t>(axis);
    }
    return (elements * bits + 7) / 8 == size;
  }

  const Model& model_;
  Bytes file_;
};

}  // namespace tfptq

#endif  // TFPTQ_MODEL_CHECKS_H_
