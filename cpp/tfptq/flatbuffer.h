// Bounds-checked reading of a FlatBuffers message that nobody has vouched for.
//
// Every offset and length is checked against the buffer before it is followed, and the work is bounded by the size of
// the buffer, since a message may point to one table from many places. Little-endian, any alignment.

#ifndef TFPTQ_FLATBUFFER_H_
#define TFPTQ_FLATBUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "utf8.h"

namespace tfptq {

// A file is not what it has to be: truncated, damaged, hostile or too new.
class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A view of bytes that belong to the message.
struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// One walk over one message.
class Walk {
 public:
  Walk(Bytes buffer, const char* identifier) : buffer_(buffer), work_left_(4 * uint64_t{buffer.size} + 65536) {
    if (buffer.size < 8) throw FormatError("too few bytes for a message");
    if (std::memcmp(buffer.data + 4, identifier, 4) != 0) {
      throw FormatError(std::string("the file identifier is not ") + identifier);
    }
  }

  // Takes `size` bytes at `position`, after checking that they lie inside.
  const uint8_t* At(uint64_t position, uint64_t size) const {
    if (position > buffer_.size || size > buffer_.size - position) {
      throw FormatError("the message points outside its " + std::to_string(buffer_.size) + " bytes");
    }
    return buffer_.data + position;
  }

  template <typename T>
  T Number(uint64_t position) const {
    using Stored = std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>;
    const uint8_t* bytes = At(position, sizeof(Stored));
    uint8_t native[sizeof(Stored)];
    for (size_t i = 0; i < sizeof(Stored); ++i) native[i] = bytes[IsLittleEndian() ? i : sizeof(Stored) - 1 - i];
    Stored value;
    std::memcpy(&value, native, sizeof(Stored));
    return static_cast<T>(value);
  }

  // The target of the forward offset at `position`.
  uint64_t Follow(uint64_t position) const {
    const uint32_t distance = Number<uint32_t>(position);
    if (distance == 0) throw FormatError("an offset is 0");
    return position + distance;
  }

  void Spend(uint64_t work) {
    if (work > work_left_) throw FormatError("the message shares parts so often that reading it would take too long");
    work_left_ -= work;
  }

 private:
  static bool IsLittleEndian() {
    const uint16_t one = 1;
    uint8_t first;
    std::memcpy(&first, &one, 1);
    return first == 1;
  }

  Bytes buffer_;
  uint64_t work_left_;
};

// A table inside a message. `depth` counts the tables around it.
class Table {
 public:
  Table(Walk& walk, uint64_t position, int depth) : walk_(walk), position_(position), depth_(depth) {
    if (depth > 16) throw FormatError("tables are nested deeper than 16");
    const int64_t vtable = static_cast<int64_t>(position) - walk.Number<int32_t>(position);
    if (vtable < 0) throw FormatError("a table lies outside the message");
    vtable_ = static_cast<uint64_t>(vtable);
    vtable_size_ = walk.Number<uint16_t>(vtable_);
    size_ = walk.Number<uint16_t>(vtable_ + 2);
    if (vtable_size_ < 4 || size_ < 4) throw FormatError("a table is damaged");
    walk.At(vtable_, vtable_size_);
    walk.At(position_, size_);
    walk.Spend(size_ + 64);
  }

  template <typename T>
  T Scalar(int slot, T absent) const {
    const uint64_t field = Field(slot, sizeof(T));
    return field == 0 ? absent : walk_.Number<T>(field);
  }

  std::string String(int slot) const {
    const Bytes bytes = VectorBytes(slot, 1);
    walk_.Spend(bytes.size);
    if (!IsUtf8(bytes.data, bytes.size)) throw FormatError("a string is not UTF-8");
    return std::string(reinterpret_cast<const char*>(bytes.data), bytes.size);
  }

  // Free of charge; each byte of the message is to be read once, however many views there are.
  Bytes View(int slot) const { return VectorBytes(slot, 1); }

  template <typename T>
  std::vector<T> Vector(int slot) const {
    const Bytes bytes = VectorBytes(slot, sizeof(T));
    walk_.Spend(bytes.size);
    std::vector<T> values(bytes.size / sizeof(T));
    const uint64_t start = values.empty() ? 0 : Start(slot);
    for (size_t i = 0; i < values.size(); ++i) values[i] = walk_.Number<T>(start + i * sizeof(T));
    return values;
  }

  // Reads a table with `read(walk, position, depth)`; one without values when it is absent.
  template <typename T>
  T Child(int slot, T (*read)(Walk&, uint64_t, int)) const {
    const uint64_t field = Field(slot, 4);
    return field == 0 ? T{} : read(walk_, walk_.Follow(field), depth_ + 1);
  }

  // Reads a table as a member of a union; nothing when it is absent.
  template <typename Union, typename T>
  Union Member(int slot, T (*read)(Walk&, uint64_t, int)) const {
    const uint64_t field = Field(slot, 4);
    return field == 0 ? Union{} : Union{read(walk_, walk_.Follow(field), depth_ + 1)};
  }

  // Reads a vector of tables with `read(walk, position, depth)`.
  template <typename T>
  std::vector<T> Tables(int slot, T (*read)(Walk&, uint64_t, int)) const {
    const size_t count = VectorBytes(slot, 4).size / 4;
    walk_.Spend(4 * uint64_t{count});
    std::vector<T> values;
    for (size_t i = 0; i < count; ++i) values.push_back(read(walk_, walk_.Follow(Start(slot) + 4 * i), depth_ + 1));
    return values;
  }

 private:
  // Position of a field of `width` bytes; 0 when it is absent.
  uint64_t Field(int slot, uint64_t width) const {
    const uint64_t entry = 4 + 2 * static_cast<uint64_t>(slot);
    if (entry + 2 > vtable_size_) return 0;
    const uint64_t distance = walk_.Number<uint16_t>(vtable_ + entry);
    if (distance == 0) return 0;
    if (distance + width > size_) throw FormatError("a field leaves its table");
    return position_ + distance;
  }

  // Position of the first entry of a vector that is present.
  uint64_t Start(int slot) const { return walk_.Follow(Field(slot, 4)) + 4; }

  Bytes VectorBytes(int slot, uint64_t width) const {
    const uint64_t field = Field(slot, 4);
    if (field == 0) return {};
    const uint64_t target = walk_.Follow(field);
    const uint64_t size = width * walk_.Number<uint32_t>(target);
    return {walk_.At(target + 4, size), static_cast<size_t>(size)};
  }

  Walk& walk_;
  uint64_t position_;
  int depth_;
  uint64_t vtable_ = 0;
  uint16_t vtable_size_ = 0;
  uint16_t size_ = 0;
};

}  // namespace tfptq

#endif  // TFPTQ_FLATBUFFER_H_
