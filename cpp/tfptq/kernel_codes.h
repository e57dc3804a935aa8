// The integer codes of a kernel, "Where the codes are" in docs/format.md.

#ifndef TFPTQ_KERNEL_CODES_H_
#define TFPTQ_KERNEL_CODES_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "model_checks.h"
#include "tensor_blocks.h"

namespace tfptq {

// Number of taps, T.
inline uint64_t Taps(const TensorBlocks& blocks) {
  uint64_t taps = 1;
  for (uint32_t axis = 0; axis < blocks.shape.size(); ++axis) {
    const bool is_input = std::count(blocks.input_axes.begin(), blocks.input_axes.end(), axis) > 0;
    if (axis != blocks.output_axis && !is_input) taps *= blocks.shape[axis];
  }
  return taps;
}

// Integer r[v,h] that a layout on integers multiplies the codes with; 1 where a row has one block.
inline int Multiple(const TensorBlocks& blocks, uint64_t row, uint64_t column) {
  const uint64_t columns = Columns(blocks);
  if (columns == 1) return 1;
  const int8_t* const factors = blocks.integer_factors.data() + row * columns;
  if (blocks.scale_kind == ScaleKind::Integer) return factors[column];
  return 1 << (factors[column] - *std::min_element(factors, factors + columns));
}

// Reads the codes of one kernel.
class KernelCodes {
 public:
  KernelCodes(const TensorBlocks& blocks, const Model& model, Bytes file)
      : blocks_(blocks), tensor_(model.subgraphs[blocks.subgraph].tensors[blocks.tensor]) {
    data_ = BufferBytes(model.buffers[tensor_.buffer], file);
    Require(blocks, !tensor_.shape.empty() && data_.size > 0, "the tensor of codes is not a constant");
    const bool narrow = tensor_.type == TensorType::INT4 || tensor_.type == TensorType::INT2;
    Require(blocks, narrow || tensor_.type == TensorType::INT8, "the tensor of codes is not INT8, INT4 or INT2");
    width_ = TypeBits(tensor_.type);
    // ModelCheck has seen that the bytes are those of the tensor's shape.
    const uint64_t most = 8 * data_.size / width_;
    uint64_t elements = 1;
    for (const uint32_t size : blocks.shape) {
      Require(blocks, elements <= most / size, "the tensor of codes has another shape");
      elements *= size;
    }
    uint64_t stored = 1;
    for (const int32_t size : tensor_.shape) stored *= static_cast<uint64_t>(size);
    Require(blocks, elements == stored, "the tensor of codes has another shape");
  }

  // int8 [O, T, I]: the input channels of a tap lie side by side.
  std::vector<int8_t> Read() const {
    const uint64_t inputs = Inputs(blocks_), taps = Taps(blocks_);
    std::vector<int8_t> codes(Outputs(blocks_) * taps * inputs);
    std::vector<uint32_t> index(blocks_.shape.size(), 0);
    for (uint64_t place = 0; place < codes.size(); ++place, Advance(&index)) {
      uint64_t tap = 0, input = 0;
      for (uint32_t axis = 0; axis < index.size(); ++axis) {
        if (axis != blocks_.output_axis && !IsInput(axis)) tap = tap * blocks_.shape[axis] + index[axis];
      }
      for (const uint32_t axis : blocks_.input_axes) input = input * blocks_.shape[axis] + index[axis];
      const uint32_t output = index[blocks_.output_axis];
      codes[(output * taps + tap) * inputs + input] = Code(place, output, input);
    }
    return codes;
  }

 private:
  bool IsInput(uint32_t axis) const {
    return std::count(blocks_.input_axes.begin(), blocks_.input_axes.end(), axis) > 0;
  }

  // The next element in row-major order.
  void Advance(std::vector<uint32_t>* index) const {
    for (size_t axis = index->size(); axis > 0; --axis) {
      if (++(*index)[axis - 1] < blocks_.shape[axis - 1]) return;
      (*index)[axis - 1] = 0;
    }
  }

  int8_t Code(uint64_t place, uint64_t output, uint64_t input) const {
    int code = Stored(place);
    if (!ScalesInConstant(blocks_.layout)) {
      const int multiple = Multiple(blocks_, output / blocks_.block_outputs, input / blocks_.block_inputs);
      Require(blocks_, code % multiple == 0, "a stored code is no multiple of its block's integer");
      code /= multiple;
    }
    const int highest = (1 << (blocks_.bits - 1)) - 1, lowest = blocks_.bits <= 4 ? -highest - 1 : -highest;
    Require(blocks_, code >= lowest && code <= highest, "a code is out of its range");
    return static_cast<int8_t>(code);
  }

  // An element of the tensor; narrow ones start in the lowest bits of a byte.
  int Stored(uint64_t place) const {
    const uint64_t bit = place * width_;
    const int value = data_.data[bit / 8] >> bit % 8 & ((1 << width_) - 1);
    return value >= 1 << (width_ - 1) ? value - (1 << width_) : value;
  }

  const TensorBlocks& blocks_;
  const Tensor& tensor_;
  Bytes data_;
  uint64_t width_ = 8;
};

}  // namespace tfptq

#endif  // TFPTQ_KERNEL_CODES_H_
