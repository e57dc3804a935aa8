// Made from the part of LiteRT's schema stated there by cpp/generate_reader.py. Do not edit.

#ifndef TFPTQ_MODEL_SCHEMA_H_
#define TFPTQ_MODEL_SCHEMA_H_

#include <cstdint>
#include <string>
#include <vector>

#include "flatbuffer.h"

namespace tfptq {

struct QuantizationParameters {
  std::vector<float> scale;
};

inline QuantizationParameters ReadQuantizationParameters(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  QuantizationParameters value;
  value.scale = table.Vector<float>(2);
  return value;
}

struct Tensor {
  std::vector<int32_t> shape;
  int8_t type{};
  uint32_t buffer{};
  std::string name;
  QuantizationParameters quantization{};
};

inline Tensor ReadTensor(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Tensor value;
  value.shape = table.Vector<int32_t>(0);
  value.type = table.Scalar<int8_t>(1, 0);
  value.buffer = table.Scalar<uint32_t>(2, 0);
  value.name = table.String(3);
  value.quantization = table.Child<QuantizationParameters>(4, ReadQuantizationParameters);
  return value;
}

struct SubGraph {
  std::vector<Tensor> tensors;
};

inline SubGraph ReadSubGraph(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  SubGraph value;
  value.tensors = table.Tables<Tensor>(0, ReadTensor);
  return value;
}

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
  std::vector<SubGraph> subgraphs;
  std::vector<Buffer> buffers;
  std::vector<Metadata> metadata;
};

inline Model ReadModel(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Model value;
  value.subgraphs = table.Tables<SubGraph>(2, ReadSubGraph);
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
