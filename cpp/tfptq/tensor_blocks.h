// The values that describe one quantized weight, what follows from them, and the rules that they must not break.

#ifndef TFPTQ_TENSOR_BLOCKS_H_
#define TFPTQ_TENSOR_BLOCKS_H_

#include <cmath>
#include <set>
#include <string>

#include "blocks_schema.h"

namespace tfptq {

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

// Whether the file has a constant of block scales, in place of scales of the rows in the quantization parameters.
inline bool ScalesInConstant(Layout layout) {
  return layout == Layout::Native || layout == Layout::Inline || layout == Layout::Composite;
}

// What the blocks of a weight amount to.
inline Granularity GranularityOf(const TensorBlocks& tensor) {
  const bool one_column = Columns(tensor) == 1, rows_of_one = tensor.block_outputs == 1;
  const bool is_wes = tensor.scale_kind == ScaleKind::Shift && tensor.base.size() == 1 && rows_of_one && one_column;
  if (is_wes || (one_column && Rows(tensor) == 1)) return Granularity::Tensor;
  return one_column && rows_of_one ? Granularity::Channel : Granularity::Block;
}

// Throws FormatError when a description contradicts itself.
inline void Require(const TensorBlocks& tensor, bool holds, const char* problem) {
  if (!holds) throw FormatError("block metadata of layer " + tensor.layer + ": " + problem);
}

inline void CheckAxes(const TensorBlocks& tensor) {
  Require(tensor, !tensor.shape.empty() && tensor.shape.size() <= 8, "impossible shape");
  for (const uint32_t size : tensor.shape) Require(tensor, size > 0, "impossible shape");
  std::set<uint32_t> axes = {tensor.output_axis};
  axes.insert(tensor.input_axes.begin(), tensor.input_axes.end());
  const bool differ = axes.size() == 1 + tensor.input_axes.size();
  Require(tensor, differ && *axes.rbegin() < tensor.shape.size(), "impossible axes");
}

inline void CheckShape(const TensorBlocks& tensor) {
  CheckAxes(tensor);
  Require(tensor, tensor.block_outputs >= 1 && tensor.block_outputs <= Outputs(tensor), "impossible blocks");
  Require(tensor, tensor.block_inputs >= 1 && tensor.block_inputs <= Inputs(tensor), "impossible blocks");
}

inline void Check(const TensorBlocks& tensor) {
  const auto require = [&](bool holds, const char* problem) { Require(tensor, holds, problem); };
  const std::set<int> widths = {2, 3, 4, 5, 6, 8};
  require(widths.count(tensor.bits) == 1, "impossible number of bits");
  CheckShape(tensor);
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

  require(tensor.granularity == GranularityOf(tensor), "the granularity does not fit the blocks");
  const bool fits = !is_float || columns == 1 || ScalesInConstant(tensor.layout);
  require(fits, "float blocks cannot lie in a layout on integers");
}

}  // namespace tfptq

#endif  // TFPTQ_TENSOR_BLOCKS_H_
