// Fixed-point rescaling of 32-bit accumulators, "Running a layer in integers" in docs/format.md.
//
// Needs right shifts of negative numbers to keep the sign, as all compilers for two's complement do.

#ifndef TFPTQ_FIXED_POINT_H_
#define TFPTQ_FIXED_POINT_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "flatbuffer.h"

namespace tfptq {

// mantissa * 2^(exponent - 31), the mantissa from 2^30 to below 2^31.
struct Multiplier {
  int64_t mantissa = 0;
  int exponent = 0;
};

inline bool operator<(const Multiplier& left, const Multiplier& right) {
  return left.exponent != right.exponent ? left.exponent < right.exponent : left.mantissa < right.mantissa;
}

inline Multiplier QuantizeMultiplier(double real) {
  if (!(std::isfinite(real) && real >= 0)) throw FormatError("a multiplier is not a finite number of at least 0");
  int exponent;
  const double fraction = std::frexp(real, &exponent);
  const auto mantissa = static_cast<int64_t>(std::floor(std::ldexp(fraction, 31) + 0.5));
  if (mantissa == int64_t{1} << 31) return {int64_t{1} << 30, exponent + 1};
  return {mantissa, exponent};
}

// Returns a value as it is. Throws std::overflow_error where no 32-bit register holds it.
inline int64_t CheckInt32(int64_t value) {
  if (value > INT32_MAX || value < INT32_MIN) throw std::overflow_error("an accumulator overflows 32 bits");
  return value;
}

// value / 2^shift to nearest, ties away from zero; shift is 0 to 62.
inline int64_t RoundingShiftRight(int64_t value, int shift) {
  const int64_t mask = (int64_t{1} << shift) - 1;
  const int64_t threshold = (mask >> 1) + (value < 0 ? 1 : 0);
  return (value >> shift) + ((value & mask) > threshold ? 1 : 0);
}

// Below this exponent every product is 0.
constexpr int kLowestExponent = -31;

// An int32 times a multiplier, rounded once.
inline int64_t RescaleOnce(int64_t value, Multiplier by) {
  if (by.exponent < kLowestExponent) return 0;
  return RoundingShiftRight(value * by.mantissa, 31 - std::min(by.exponent, 30));
}

// An int32 times a multiplier, rounded twice, as the reference kernels of convolutions do.
inline int64_t RescaleTwice(int64_t value, Multiplier by) {
  const int64_t shifted = CheckInt32(value * (int64_t{1} << std::clamp(by.exponent, 0, 31)));
  if (by.exponent < kLowestExponent) return 0;
  const int64_t product = shifted * by.mantissa, half = int64_t{1} << 30;
  const int64_t high = (product + (product >= 0 ? half : 1 - half)) / (int64_t{1} << 31);
  return RoundingShiftRight(high, std::max(-by.exponent, 0));
}

}  // namespace tfptq

#endif  // TFPTQ_FIXED_POINT_H_
