// Reads the block metadata of a .tflite file: what an NPU needs to run a layer in its own integer form.
//
// docs/format.md is the specification. Header-only C++17; needs the standard library and the headers beside it.
// Everything that a function returns was checked: V, H and the lengths of all vectors fit, scales are finite and
// positive. Whether the tensors of the file are as described is for the caller to check, who reads them.
//
//   const auto metadata = tfptq::ReadBlocks({file.data(), file.size()});
//   if (metadata) for (const auto& tensor : metadata->tensors) ... tfptq::Scale(tensor, v, h) ...

#ifndef TFPTQ_BLOCKS_H_
#define TFPTQ_BLOCKS_H_

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blocks_schema.h"
#include "model_schema.h"

namespace tfptq {

constexpr uint32_t kSchemaVersion = 1;
constexpr const char* kMetadataKey = "TFPTQ_BLOCKS";

// Number of output channels, O.
inline uint64_t Outputs(const TensorBlocks& tensor) { return tensor.shape[tensor.output_axis]; }

// Number of input channels, I.
inline uint64_t Inputs(const TensorBlocks& tensor) {
  uint64_t inputs = 1;
  for (const uint32_t axis : tensor.input_axes) {
    if (inputs > UINT32_MAX) throw FormatError(tensor.layer + ": impossible shape");
    inputs *= tensor.shape[axis];
  }
  return inputs;
}

// Number of rows of blocks, V.
inline uint64_t Rows(const TensorBlocks& tensor) {
  return (Outputs(tensor) + tensor.block_outputs - 1) / tensor.block_outputs;
}

// Number of columns of blocks, H.
inline uint64_t Columns(const TensorBlocks& tensor) {
  return (Inputs(tensor) + tensor.block_inputs - 1) / tensor.block_inputs;
}

// Scale S[v,h] of a block.
inline float Scale(const TensorBlocks& tensor, uint64_t row, uint64_t column) {
  const uint64_t index = row * Columns(tensor) + column;
  if (tensor.scale_kind == ScaleKind::Float) return tensor.float_factors[index];
  const float base = tensor.base.size() == 1 ? tensor.base[0] : tensor.base[row];
  const int factor = tensor.integer_factors[index];
  return tensor.scale_kind == ScaleKind::Shift ? std::ldexp(base, factor) : base * static_cast<float>(factor);
}

// Throws FormatError when a description contradicts itself.
inline void Check(const TensorBlocks& tensor) {
  const auto require = [&](bool holds, const char* problem) {
    if (!holds) throw FormatError("block metadata of layer " + tensor.layer + ": " + problem);
  };
  const std::set<int> widths = {2, 3, 4, 5, 6, 8};
  require(widths.count(tensor.bits) == 1, "impossible number of bits");
  require(!tensor.shape.empty() && tensor.shape.size() <= 8, "impossible shape");
  for (const uint32_t size : tensor.shape) require(size > 0, "impossible shape");
  std::set<uint32_t> axes = {tensor.output_axis};
  axes.insert(tensor.input_axes.begin(), tensor.input_axes.end());
  require(axes.size() == 1 + tensor.input_axes.size() && *axes.rbegin() < tensor.shape.size(), "impossible axes");
  require(tensor.block_outputs >= 1 && tensor.block_outputs <= Outputs(tensor), "impossible blocks");
  require(tensor.block_inputs >= 1 && tensor.block_inputs <= Inputs(tensor), "impossible blocks");

  const bool is_float = tensor.scale_kind == ScaleKind::Float;
  const uint64_t rows = Rows(tensor), columns = Columns(tensor);
  const uint64_t factors = is_float ? tensor.float_factors.size() : tensor.integer_factors.size();
  const uint64_t others = is_float ? tensor.integer_factors.size() : tensor.float_factors.size();
  require(others == 0 && factors % rows == 0 && factors / rows == columns, "factors of the wrong length");
  require(tensor.base.size() == 1 || tensor.base.size() == rows, "base of the wrong length");
  require(!is_float || (tensor.base.size() == 1 && tensor.base[0] == 1.0f), "float factors need the base 1");
  for (const float base : tensor.base) require(std::isfinite(base) && base > 0, "scales must be finite and positive");
  const int lowest = tensor.scale_kind == ScaleKind::Shift ? -15 : 1;
  const int highest = tensor.scale_kind == ScaleKind::Shift ? 15 : 16;
  for (const int8_t factor : tensor.integer_factors) {
    require(factor >= lowest && factor <= highest, "factor out of range");
  }
  for (uint64_t row = 0; row < rows; ++row) {
    for (uint64_t column = 0; column < columns; ++column) {
      const float scale = Scale(tensor, row, column);
      require(std::isfinite(scale) && scale > 0, "scales must be finite and positive");
    }
  }

  const bool is_wes = tensor.scale_kind == ScaleKind::Shift && tensor.base.size() == 1 && tensor.block_outputs == 1;
  const bool by_channel = tensor.block_outputs == 1 && columns == 1;
  const Granularity granularity = factors == 1 || (is_wes && columns == 1) ? Granularity::Tensor
                                  : by_channel                             ? Granularity::Channel
                                                                           : Granularity::Block;
  require(tensor.granularity == granularity, "the granularity does not fit the blocks");
  const bool in_float =
      tensor.layout == Layout::Native || tensor.layout == Layout::Inline || tensor.layout == Layout::Composite;
  require(in_float || !(is_float && columns > 1), "float blocks cannot lie in a layout on integers");

  if (!tensor.permutation.empty()) {
    std::vector<uint32_t> sorted = tensor.permutation;
    std::sort(sorted.begin(), sorted.end());
    bool complete = sorted.size() == Outputs(tensor);
    for (size_t i = 0; complete && i < sorted.size(); ++i) complete = sorted[i] == i;
    require(complete, "the permutation is not one");
  }
}

// Reads a message with block metadata. Throws FormatError when it is damaged, contradicts itself or is too new.
inline BlockMetadata DecodeBlocks(Bytes message) {
  BlockMetadata metadata = DecodeBlockMetadata(message);
  if (metadata.schema_version < 1 || metadata.schema_version > kSchemaVersion) {
    throw FormatError("the block metadata has schema version " + std::to_string(metadata.schema_version) +
                      "; this reader knows 1 to " + std::to_string(kSchemaVersion));
  }
  std::set<std::pair<uint32_t, uint32_t>> places;
  for (const TensorBlocks& tensor : metadata.tensors) {
    Check(tensor);
    if (!places.insert({tensor.subgraph, tensor.tensor}).second) throw FormatError("a tensor is described twice");
  }
  return metadata;
}

// Reads the block metadata of a .tflite file; nothing when it carries none. Throws like DecodeBlocks.
inline std::optional<BlockMetadata> ReadBlocks(Bytes file) {
  const Model model = DecodeModel(file);
  std::vector<const Metadata*> found;
  for (const Metadata& entry : model.metadata) {
    if (entry.name == kMetadataKey) found.push_back(&entry);
  }
  if (found.empty()) return std::nullopt;
  if (found.size() > 1) throw FormatError(std::string("several metadata entries named ") + kMetadataKey);
  if (found[0]->buffer >= model.buffers.size()) throw FormatError("the metadata names a buffer that does not exist");
  const Buffer& buffer = model.buffers[found[0]->buffer];
  if (buffer.offset <= 1) return DecodeBlocks(buffer.data);
  // In files above 2 GB the buffers lie behind the message.
  if (buffer.offset > file.size || buffer.size > file.size - buffer.offset) {
    throw FormatError("a buffer leaves the file");
  }
  return DecodeBlocks({file.data + buffer.offset, static_cast<size_t>(buffer.size)});
}

}  // namespace tfptq

#endif  // TFPTQ_BLOCKS_H_
