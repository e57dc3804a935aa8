// Made from the part of LiteRT's schema stated there by cpp/generate_reader.py. Do not edit.

#ifndef TFPTQ_MODEL_SCHEMA_H_
#define TFPTQ_MODEL_SCHEMA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "flatbuffer.h"

namespace tfptq {

struct Buffer {
  Bytes data;
  uint64_t offset{};
  uint64_t size{};
};

inline Buffer ReadBuffer(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Buffer value;
  value.data = table.View(0);
  value.offset = table.Scalar<uint64_t>(1, 0);
  value.size = table.Scalar<uint64_t>(2, 0);
  return value;
}

struct Metadata {
  std::string name;
  uint32_t buffer{};
};

inline Metadata ReadMetadata(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Metadata value;
  value.name = table.String(0);
  value.buffer = table.Scalar<uint32_t>(1, 0);
  return value;
}

struct Model {
  std::vector<Buffer> buffers;
  std::vector<Metadata> metadata;
};

inline Model ReadModel(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Model value;
  value.buffers = table.Tables<Buffer>(4, ReadBuffer);
  value.metadata = table.Tables<Metadata>(6, ReadMetadata);
  return value;
}

// Reads a whole message. Throws FormatError when it leaves its bytes.
inline Model DecodeModel(Bytes message) {
  Walk walk(message, "TFL3");
  return ReadModel(walk, walk.Follow(0), 0);
}

}  // namespace tfptq

#endif  // TFPTQ_MODEL_SCHEMA_H_
