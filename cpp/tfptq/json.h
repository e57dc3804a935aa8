// Whether a text is a JSON object within the limits of docs/format.md. Reads nothing, allocates nothing.

#ifndef TFPTQ_JSON_H_
#define TFPTQ_JSON_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace tfptq {

// One pass over a text of UTF-8 (RFC 8259).
class JsonCheck {
 public:
  explicit JsonCheck(const std::string& text) : at_(text.data()), end_(text.data() + text.size()) {}

  bool IsObject() {
    Space();
    return at_ != end_ && *at_ == '{' && Value(0) && (Space(), at_ == end_);
  }

 private:
  static constexpr int kDeepest = 32;
  static constexpr ptrdiff_t kLongestNumber = 40;

  bool Take(char letter) {
    if (at_ == end_ || *at_ != letter) return false;
    ++at_;
    return true;
  }

  bool Word(const char* word) {
    const size_t length = std::strlen(word);
    if (static_cast<size_t>(end_ - at_) < length || std::memcmp(at_, word, length) != 0) return false;
    at_ += length;
    return true;
  }

  void Space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }

  bool Value(int depth) {
    Space();
    if (at_ == end_) return false;
    if (Take('{')) return depth < kDeepest && Members('}', depth, true);
    if (Take('[')) return depth < kDeepest && Members(']', depth, false);
    if (*at_ == '"') return String();
    return Word("true") || Word("false") || Word("null") || Number();
  }

  bool Members(char close, int depth, bool named) {
    Space();
    if (Take(close)) return true;
    do {
      Space();
      if (named && !(String() && (Space(), Take(':')))) return false;
      if (!Value(depth + 1)) return false;
      Space();
    } while (Take(','));
    return Take(close);
  }

  bool String() {
    if (!Take('"')) return false;
    while (at_ != end_) {
      const uint8_t letter = static_cast<uint8_t>(*at_++);
      if (letter == '"') return true;
      if (letter < 0x20 || (letter == '\\' && !Escape())) return false;
    }
    return false;
  }

  bool Escape() {
    if (at_ == end_) return false;
    const char letter = *at_++;
    if (letter != 'u') return std::strchr("\"\\/bfnrt", letter) != nullptr && letter != '\0';
    int first, second;
    if (!Hex(&first) || (first >= 0xdc00 && first < 0xe000)) return false;
    if (first < 0xd800 || first >= 0xe000) return true;
    return Word("\\u") && Hex(&second) && second >= 0xdc00 && second < 0xe000;  // the other half of a pair
  }

  bool Hex(int* value) {
    *value = 0;
    for (int i = 0; i < 4; ++i) {
      if (at_ == end_) return false;
      const char letter = *at_++;
      const bool digit = letter >= '0' && letter <= '9', low = letter >= 'a' && letter <= 'f';
      if (!digit && !low && !(letter >= 'A' && letter <= 'F')) return false;
      *value = *value << 4 | (digit ? letter - '0' : letter - (low ? 'a' : 'A') + 10);
    }
    return true;
  }

  bool Digits() {
    const char* const start = at_;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') ++at_;
    return at_ != start;
  }

  bool Number() {
    const char* const start = at_;
    Take('-');
    if (!Take('0') && !Digits()) return false;
    if (Take('.') && !Digits()) return false;
    if (Take('e') || Take('E')) {
      if (!Take('+')) Take('-');
      const char* const exponent = at_;
      if (!Digits() || at_ - exponent > 2) return false;
    }
    return at_ - start <= kLongestNumber;
  }

  const char* at_;
  const char* end_;
};

}  // namespace tfptq

#endif  // TFPTQ_JSON_H_
