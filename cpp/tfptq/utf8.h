// Whether bytes are UTF-8, and text that no terminal obeys.

#ifndef TFPTQ_UTF8_H_
#define TFPTQ_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace tfptq {

// Number of bytes of the code point at `data`, of which `size` are left; 0 where there is none. RFC 3629: neither
// surrogates, nor longer forms than necessary, nor numbers above 0x10ffff.
inline size_t CodePoint(const uint8_t* data, size_t size, uint32_t* value) {
  const uint8_t first = data[0];
  const size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length == 0 || length > size) return 0;
  *value = length == 1 ? first : first & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((data[i] & 0xc0) != 0x80) return 0;
    *value = *value << 6 | (data[i] & 0x3fu);
  }
  const bool too_long = (length == 3 && *value < 0x800) || (length == 4 && *value < 0x10000);
  const bool surrogate = *value >= 0xd800 && *value < 0xe000;
  return too_long || surrogate || *value > 0x10ffff ? 0 : length;
}

inline bool IsUtf8(const uint8_t* data, size_t size) {
  uint32_t value;
  for (size_t at = 0; at < size;) {
    const size_t length = CodePoint(data + at, size - at, &value);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

// Text of printable ASCII alone; everything else becomes an escape such as \x1b or \u5c42, as in Python.
inline std::string Printable(const std::string& text) {
  const uint8_t* data = reinterpret_cast<const uint8_t*>(text.data());
  const char* digits = "0123456789abcdef";
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    uint32_t value;
    size_t length = CodePoint(data + at, text.size() - at, &value);
    if (length == 0) {
      value = data[at];
      length = 1;
    }
    at += length;
    if (value >= 0x20 && value < 0x7f) {
      shown += static_cast<char>(value);
      continue;
    }
    const int width = value < 0x100 ? 2 : value < 0x10000 ? 4 : 8;
    shown += width == 2 ? "\\x" : width == 4 ? "\\u" : "\\U";
    for (int shift = 4 * (width - 1); shift >= 0; shift -= 4) shown += digits[value >> shift & 15];
  }
  return shown;
}

}  // namespace tfptq

#endif  // TFPTQ_UTF8_H_
