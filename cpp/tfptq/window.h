// The window of a 2-D convolution. Pairs are height and width.

#ifndef TFPTQ_WINDOW_H_
#define TFPTQ_WINDOW_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace tfptq {

struct Window {
  std::array<int64_t, 2> kernel = {1, 1};
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> dilation = {1, 1};
  bool same = false;                                  // padding SAME, else VALID
  std::array<int64_t, 2> transposed_size = {0, 0};    // of the output of a TRANSPOSE_CONV

  // How many inputs the window covers along an axis.
  int64_t Reach(size_t axis) const { return (kernel[axis] - 1) * dilation[axis] + 1; }

  // Number of window positions along an axis of an input.
  int64_t Positions(int64_t size, size_t axis) const {
    const int64_t covered = same ? size : size - Reach(axis) + 1;
    return std::max<int64_t>((covered + stride[axis] - 1) / stride[axis], 0);
  }

  // Zeros in front of an axis of the input. SAME puts the odd one behind.
  int64_t PadBefore(int64_t size, size_t axis) const {
    const int64_t covered = (Positions(size, axis) - 1) * stride[axis] + Reach(axis);
    return std::max<int64_t>(covered - size, 0) / 2;
  }

  // The input that a tap reads at a position; -1 where that is padding.
  int64_t Source(int64_t position, int64_t tap, int64_t size, size_t axis) const {
    const int64_t at = position * stride[axis] + tap * dilation[axis] - PadBefore(size, axis);
    return at >= 0 && at < size ? at : -1;
  }

  // The same of a transposed convolution: this window runs over its output.
  int64_t TransposedSource(int64_t position, int64_t tap, int64_t size, size_t axis) const {
    const int64_t at = position + PadBefore(transposed_size[axis], axis) - tap;
    return at >= 0 && at % stride[axis] == 0 && at / stride[axis] < size ? at / stride[axis] : -1;
  }
};

}  // namespace tfptq

#endif  // TFPTQ_WINDOW_H_
