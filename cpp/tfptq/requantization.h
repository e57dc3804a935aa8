// The integers that a device keeps to bring the sums of a layer to output codes, "Running a layer in integers" in
// docs/format.md:
//
//   acc[o]  = sum over h of Combine(v, h, A[o,h]) + bias[o]            unit  s_x * unit[v]
//   code[o] = clamp(z_y + ToOutput(v, acc[o]))
//
// A[o,h] is the sum of products of the block column h, and v the block row of the output channel o.

#ifndef TFPTQ_REQUANTIZATION_H_
#define TFPTQ_REQUANTIZATION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "fixed_point.h"
#include "kernel_codes.h"
#include "tensor_blocks.h"

namespace tfptq {

// Whether this is WES (arXiv 2008.05767): one base for the layer and a right shift for each output channel.
inline bool IsShiftScaler(const TensorBlocks& blocks) {
  const bool rows_of_one = blocks.block_outputs == 1 && Columns(blocks) == 1;
  return blocks.scale_kind == ScaleKind::Shift && blocks.base.size() == 1 && rows_of_one;
}

class Requantization {
 public:
  // `rounds_once` is for FULLY_CONNECTED: kernels of convolutions round twice.
  Requantization(const TensorBlocks& blocks, double input_scale, double output_scale, bool rounds_once)
      : columns_(Columns(blocks)), rounds_once_(rounds_once) {
    const uint64_t rows = Rows(blocks);
    const bool float_blocks = blocks.scale_kind == ScaleKind::Float && columns_ > 1;
    for (uint64_t row = 0; row < rows; ++row) {
      if (float_blocks) {
        AddFloatRow(blocks, row);
      } else {
        units_.push_back(static_cast<double>(RowScale(blocks, row)));
        for (uint64_t column = 0; column < columns_; ++column) factors_.push_back(Multiple(blocks, row, column));
      }
    }
    const bool one_multiplier = IsShiftScaler(blocks);
    for (uint64_t row = 0; row < rows; ++row) {
      const double unit = one_multiplier ? static_cast<double>(blocks.base[0]) : units_[row];
      Multiplier found = QuantizeMultiplier(input_scale * unit / output_scale);
      if (one_multiplier) found.exponent += blocks.integer_factors[row];
      rows_.push_back(found);
    }
    multipliers_ = one_multiplier ? 1 : std::set<Multiplier>(rows_.begin(), rows_.end()).size() + blocks_.size();
  }

  // A sum of products of a block, in the unit of the accumulator.
  int64_t Combine(uint64_t row, uint64_t column, int64_t partial) const {
    const uint64_t block = row * columns_ + column;
    CheckInt32(partial);
    return blocks_.empty() ? CheckInt32(partial * factors_[block]) : RescaleOnce(partial, blocks_[block]);
  }

  // An accumulator in steps of the output's grid.
  int64_t ToOutput(uint64_t row, int64_t accumulator) const {
    CheckInt32(accumulator);
    return rounds_once_ ? RescaleOnce(accumulator, rows_[row]) : RescaleTwice(accumulator, rows_[row]);
  }

  // The real value of 1 in an accumulator, over the scale of the input.
  double Unit(uint64_t row) const { return units_[row]; }

  // Different multipliers that the device holds, shifts left out.
  uint64_t Multipliers() const { return multipliers_; }

  // Multiplications or shifts for an output value: one, and one more for each block where a row has several.
  uint64_t RescalesPerOutput() const { return columns_ == 1 ? 1 : columns_ + 1; }

  // Those of them that are multiplications with a mantissa of 31 bits.
  uint64_t MultipliesPerOutput() const { return blocks_.empty() ? 1 : columns_ + 1; }

 private:
  static constexpr int kMostGuardBits = 8;

  // Scale of a row of blocks, of which the others are multiples.
  static float RowScale(const TensorBlocks& blocks, uint64_t row) {
    const uint64_t columns = Columns(blocks);
    if (columns == 1) return Scale(blocks, row, 0);
    const float base = blocks.base.size() == 1 ? blocks.base[0] : blocks.base[row];
    if (blocks.scale_kind == ScaleKind::Integer) return base;
    const int8_t* const factors = blocks.integer_factors.data() + row * columns;
    return std::ldexp(base, *std::min_element(factors, factors + columns));
  }

  // Each block has a multiplier, with guard bits below the unit of the largest scale.
  void AddFloatRow(const TensorBlocks& blocks, uint64_t row) {
    double largest = 0;
    for (uint64_t h = 0; h < columns_; ++h) largest = std::max(largest, static_cast<double>(Scale(blocks, row, h)));
    int bits = 0;
    for (uint64_t bound = Inputs(blocks) * Taps(blocks) * 255 * 127; bound > 0; bound >>= 1) ++bits;
    const int guard = std::clamp(30 - bits, 0, kMostGuardBits);
    for (uint64_t h = 0; h < columns_; ++h) {
      const double ratio = static_cast<double>(Scale(blocks, row, h)) / largest;
      blocks_.push_back(QuantizeMultiplier(std::ldexp(ratio, guard)));
    }
    units_.push_back(std::ldexp(largest, -guard));
  }

  uint64_t columns_;
  bool rounds_once_;
  uint64_t multipliers_ = 0;
  std::vector<double> units_;        // [V]
  std::vector<Multiplier> rows_;     // [V]
  std::vector<int64_t> factors_;     // [V, H], or empty
  std::vector<Multiplier> blocks_;   // [V, H] of float scales, or empty
};

}  // namespace tfptq

#endif  // TFPTQ_REQUANTIZATION_H_
