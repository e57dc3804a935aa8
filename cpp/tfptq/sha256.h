// SHA-256 (FIPS 180-4).

#ifndef TFPTQ_SHA256_H_
#define TFPTQ_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace tfptq {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  void Add(const uint8_t* data, size_t size) {
    bytes_ += size;
    for (; size > 0; --size) {
      block_[filled_++] = *data++;
      if (filled_ == block_.size()) Mix();
    }
  }

  // Ends the message.
  Digest Finish() {
    const uint64_t bits = 8 * bytes_;
    const uint8_t one = 0x80, zero = 0;
    Add(&one, 1);
    while (filled_ != 56) Add(&zero, 1);
    for (int shift = 56; shift >= 0; shift -= 8) {
      const uint8_t byte = static_cast<uint8_t>(bits >> shift);
      Add(&byte, 1);
    }
    Digest digest;
    for (size_t i = 0; i < 32; ++i) digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
  }

 private:
  static uint32_t Turn(uint32_t word, int right) { return word >> right | word << (32 - right); }

  void Mix() {
    static constexpr uint32_t kConstants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t words[64];
    for (size_t i = 0; i < 16; ++i) {
      const uint8_t* bytes = &block_[4 * i];
      words[i] = uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
    }
    for (size_t i = 16; i < 64; ++i) {
      const uint32_t early = Turn(words[i - 15], 7) ^ Turn(words[i - 15], 18) ^ words[i - 15] >> 3;
      const uint32_t late = Turn(words[i - 2], 17) ^ Turn(words[i - 2], 19) ^ words[i - 2] >> 10;
      words[i] = words[i - 16] + early + words[i - 7] + late;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (size_t i = 0; i < 64; ++i) {
      const uint32_t first = h + (Turn(e, 6) ^ Turn(e, 11) ^ Turn(e, 25)) + ((e & f) ^ (~e & g)) + kConstants[i] + words[i];
      const uint32_t second = (Turn(a, 2) ^ Turn(a, 13) ^ Turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + first;
      d = c;
      c = b;
      b = a;
      a = first + second;
    }
    const std::array<uint32_t, 8> mixed = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) state_[i] += mixed[i];
    filled_ = 0;
  }

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> block_{};
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace tfptq

#endif  // TFPTQ_SHA256_H_
