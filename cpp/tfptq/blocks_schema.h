// Made from tfptq/tflite/blocks.fbs by cpp/generate_reader.py. Do not edit.

#ifndef TFPTQ_BLOCKS_SCHEMA_H_
#define TFPTQ_BLOCKS_SCHEMA_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "flatbuffer.h"

namespace tfptq {

enum class Granularity : uint8_t {
  Tensor = 0,
  Channel = 1,
  Block = 2,
};

// The name of a member.
inline const char* Name(Granularity value) {
  switch (value) {
    case Granularity::Tensor: return "Tensor";
    case Granularity::Channel: return "Channel";
    case Granularity::Block: return "Block";
  }
  throw FormatError("unknown Granularity");
}

enum class ScaleKind : uint8_t {
  Float = 0,
  Integer = 1,
  Shift = 2,
};

// The name of a member.
inline const char* Name(ScaleKind value) {
  switch (value) {
    case ScaleKind::Float: return "Float";
    case ScaleKind::Integer: return "Integer";
    case ScaleKind::Shift: return "Shift";
  }
  throw FormatError("unknown ScaleKind");
}

enum class Layout : uint8_t {
  Int8 = 0,
  Int4 = 1,
  Native = 2,
  Inline = 3,
  Composite = 4,
  FullyConnectedInt4 = 6,
  FullyConnectedInt2 = 7,
  Im2colInt4 = 8,
  Im2colInt2 = 9,
  WeightsOnly = 10,
};

// The name of a member.
inline const char* Name(Layout value) {
  switch (value) {
    case Layout::Int8: return "Int8";
    case Layout::Int4: return "Int4";
    case Layout::Native: return "Native";
    case Layout::Inline: return "Inline";
    case Layout::Composite: return "Composite";
    case Layout::FullyConnectedInt4: return "FullyConnectedInt4";
    case Layout::FullyConnectedInt2: return "FullyConnectedInt2";
    case Layout::Im2colInt4: return "Im2colInt4";
    case Layout::Im2colInt2: return "Im2colInt2";
    case Layout::WeightsOnly: return "WeightsOnly";
  }
  throw FormatError("unknown Layout");
}

struct Version {
  std::string name;
  std::string version;
};

inline Version ReadVersion(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Version value;
  value.name = table.String(0);
  value.version = table.String(1);
  return value;
}

struct TensorBlocks {
  uint32_t subgraph{};
  uint32_t tensor{};
  std::string tensor_name;
  std::string layer;
  uint8_t bits{};
  Granularity granularity{};
  ScaleKind scale_kind{};
  Layout layout{};
  std::vector<uint32_t> shape;
  uint32_t output_axis{};
  std::vector<uint32_t> input_axes;
  uint32_t block_outputs{};
  uint32_t block_inputs{};
  std::vector<float> base;
  std::vector<float> float_factors;
  std::vector<int8_t> integer_factors;
};

inline TensorBlocks ReadTensorBlocks(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  TensorBlocks value;
  value.subgraph = table.Scalar<uint32_t>(0, 0);
  value.tensor = table.Scalar<uint32_t>(1, 0);
  value.tensor_name = table.String(2);
  value.layer = table.String(3);
  value.bits = table.Scalar<uint8_t>(4, 0);
  value.granularity = static_cast<Granularity>(table.Scalar<uint8_t>(5, 0));
  value.scale_kind = static_cast<ScaleKind>(table.Scalar<uint8_t>(6, 0));
  value.layout = static_cast<Layout>(table.Scalar<uint8_t>(7, 0));
  value.shape = table.Vector<uint32_t>(8);
  value.output_axis = table.Scalar<uint32_t>(9, 0);
  value.input_axes = table.Vector<uint32_t>(10);
  value.block_outputs = table.Scalar<uint32_t>(11, 0);
  value.block_inputs = table.Scalar<uint32_t>(12, 0);
  value.base = table.Vector<float>(13);
  value.float_factors = table.Vector<float>(14);
  value.integer_factors = table.Vector<int8_t>(15);
  // Refuses members that are not in the enumeration.
  Name(value.granularity);
  Name(value.scale_kind);
  Name(value.layout);
  return value;
}

struct BlockMetadata {
  uint32_t schema_version{};
  std::string config;
  uint64_t seed{};
  std::vector<Version> versions;
  std::vector<TensorBlocks> tensors;
  std::string packages;
  Bytes weights;
  Bytes digest;
};

inline BlockMetadata ReadBlockMetadata(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  BlockMetadata value;
  value.schema_version = table.Scalar<uint32_t>(0, 0);
  value.config = table.String(1);
  value.seed = table.Scalar<uint64_t>(2, 0);
  value.versions = table.Tables<Version>(3, ReadVersion);
  value.tensors = table.Tables<TensorBlocks>(4, ReadTensorBlocks);
  value.packages = table.String(5);
  value.weights = table.View(6);
  value.digest = table.View(7);
  return value;
}

// Reads a whole message. Throws FormatError when it leaves its bytes.
inline BlockMetadata DecodeBlockMetadata(Bytes message) {
  Walk walk(message, "TPQB");
  return ReadBlockMetadata(walk, walk.Follow(0), 0);
}

}  // namespace tfptq

#endif  // TFPTQ_BLOCKS_SCHEMA_H_
