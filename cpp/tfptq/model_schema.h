// Made from tfptq/tflite/model.fbs by cpp/generate_reader.py. Do not edit.

#ifndef TFPTQ_MODEL_SCHEMA_H_
#define TFPTQ_MODEL_SCHEMA_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "flatbuffer.h"

namespace tfptq {

enum class TensorType : int8_t {
  FLOAT32 = 0,
  FLOAT16 = 1,
  INT32 = 2,
  UINT8 = 3,
  INT64 = 4,
  STRING = 5,
  BOOL = 6,
  INT16 = 7,
  COMPLEX64 = 8,
  INT8 = 9,
  FLOAT64 = 10,
  COMPLEX128 = 11,
  UINT64 = 12,
  RESOURCE = 13,
  VARIANT = 14,
  UINT32 = 15,
  UINT16 = 16,
  INT4 = 17,
  BFLOAT16 = 18,
  INT2 = 19,
  UINT4 = 20,
  FLOAT8_E4M3FN = 21,
  FLOAT8_E5M2 = 22,
};

// The name of a member.
inline const char* Name(TensorType value) {
  switch (value) {
    case TensorType::FLOAT32: return "FLOAT32";
    case TensorType::FLOAT16: return "FLOAT16";
    case TensorType::INT32: return "INT32";
    case TensorType::UINT8: return "UINT8";
    case TensorType::INT64: return "INT64";
    case TensorType::STRING: return "STRING";
    case TensorType::BOOL: return "BOOL";
    case TensorType::INT16: return "INT16";
    case TensorType::COMPLEX64: return "COMPLEX64";
    case TensorType::INT8: return "INT8";
    case TensorType::FLOAT64: return "FLOAT64";
    case TensorType::COMPLEX128: return "COMPLEX128";
    case TensorType::UINT64: return "UINT64";
    case TensorType::RESOURCE: return "RESOURCE";
    case TensorType::VARIANT: return "VARIANT";
    case TensorType::UINT32: return "UINT32";
    case TensorType::UINT16: return "UINT16";
    case TensorType::INT4: return "INT4";
    case TensorType::BFLOAT16: return "BFLOAT16";
    case TensorType::INT2: return "INT2";
    case TensorType::UINT4: return "UINT4";
    case TensorType::FLOAT8_E4M3FN: return "FLOAT8_E4M3FN";
    case TensorType::FLOAT8_E5M2: return "FLOAT8_E5M2";
  }
  throw FormatError("unknown TensorType");
}

struct OperatorCode {
  int8_t deprecated_builtin_code{};
  std::string custom_code;
  int32_t builtin_code{};
};

inline OperatorCode ReadOperatorCode(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  OperatorCode value;
  value.deprecated_builtin_code = table.Scalar<int8_t>(0, 0);
  value.custom_code = table.String(1);
  value.builtin_code = table.Scalar<int32_t>(3, 0);
  return value;
}

struct BlockwiseQuantization {
  int32_t scales{};
  int32_t zero_points{};
  int32_t block_size{};
  std::vector<int32_t> block_shape;
};

inline BlockwiseQuantization ReadBlockwiseQuantization(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  BlockwiseQuantization value;
  value.scales = table.Scalar<int32_t>(0, 0);
  value.zero_points = table.Scalar<int32_t>(1, 0);
  value.block_size = table.Scalar<int32_t>(2, 0);
  value.block_shape = table.Vector<int32_t>(3);
  return value;
}

using QuantizationDetails = std::variant<std::monostate, BlockwiseQuantization>;

// Nothing where the type is another one or none.
inline QuantizationDetails ReadQuantizationDetails(const Table& table, int slot) {
  switch (table.Scalar<uint8_t>(slot - 1, 0)) {
    case 2: return table.Member<QuantizationDetails>(slot, ReadBlockwiseQuantization);
  }
  return {};
}

struct QuantizationParameters {
  std::vector<float> scale;
  std::vector<int64_t> zero_point;
  uint8_t details_type{};
  QuantizationDetails details{};
  int32_t quantized_dimension{};
};

inline QuantizationParameters ReadQuantizationParameters(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  QuantizationParameters value;
  value.scale = table.Vector<float>(2);
  value.zero_point = table.Vector<int64_t>(3);
  value.details_type = table.Scalar<uint8_t>(4, 0);
  value.details = ReadQuantizationDetails(table, 5);
  value.quantized_dimension = table.Scalar<int32_t>(6, 0);
  return value;
}

struct SparsityParameters {

};

inline SparsityParameters ReadSparsityParameters(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  SparsityParameters value;

  return value;
}

struct Tensor {
  std::vector<int32_t> shape;
  TensorType type{};
  uint32_t buffer{};
  std::string name;
  QuantizationParameters quantization{};
  bool is_variable{};
  SparsityParameters sparsity{};
  std::vector<int32_t> shape_signature;
  uint32_t external_buffer{};
};

inline Tensor ReadTensor(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Tensor value;
  value.shape = table.Vector<int32_t>(0);
  value.type = static_cast<TensorType>(table.Scalar<int8_t>(1, 0));
  value.buffer = table.Scalar<uint32_t>(2, 0);
  value.name = table.String(3);
  value.quantization = table.Child<QuantizationParameters>(4, ReadQuantizationParameters);
  value.is_variable = table.Scalar<bool>(5, 0);
  value.sparsity = table.Child<SparsityParameters>(6, ReadSparsityParameters);
  value.shape_signature = table.Vector<int32_t>(7);
  value.external_buffer = table.Scalar<uint32_t>(10, 0);
  // Refuses members that are not in the enumeration.
  Name(value.type);
  return value;
}

struct Conv2DOptions {
  int8_t padding{};
  int32_t stride_w{};
  int32_t stride_h{};
  int8_t fused_activation_function{};
  int32_t dilation_w_factor{};
  int32_t dilation_h_factor{};
};

inline Conv2DOptions ReadConv2DOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Conv2DOptions value;
  value.padding = table.Scalar<int8_t>(0, 0);
  value.stride_w = table.Scalar<int32_t>(1, 0);
  value.stride_h = table.Scalar<int32_t>(2, 0);
  value.fused_activation_function = table.Scalar<int8_t>(3, 0);
  value.dilation_w_factor = table.Scalar<int32_t>(4, 1);
  value.dilation_h_factor = table.Scalar<int32_t>(5, 1);
  return value;
}

struct DepthwiseConv2DOptions {
  int8_t padding{};
  int32_t stride_w{};
  int32_t stride_h{};
  int32_t depth_multiplier{};
  int8_t fused_activation_function{};
  int32_t dilation_w_factor{};
  int32_t dilation_h_factor{};
};

inline DepthwiseConv2DOptions ReadDepthwiseConv2DOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  DepthwiseConv2DOptions value;
  value.padding = table.Scalar<int8_t>(0, 0);
  value.stride_w = table.Scalar<int32_t>(1, 0);
  value.stride_h = table.Scalar<int32_t>(2, 0);
  value.depth_multiplier = table.Scalar<int32_t>(3, 0);
  value.fused_activation_function = table.Scalar<int8_t>(4, 0);
  value.dilation_w_factor = table.Scalar<int32_t>(5, 1);
  value.dilation_h_factor = table.Scalar<int32_t>(6, 1);
  return value;
}

struct FullyConnectedOptions {
  int8_t fused_activation_function{};
  int8_t weights_format{};
};

inline FullyConnectedOptions ReadFullyConnectedOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  FullyConnectedOptions value;
  value.fused_activation_function = table.Scalar<int8_t>(0, 0);
  value.weights_format = table.Scalar<int8_t>(1, 0);
  return value;
}

struct CallOptions {
  uint32_t subgraph{};
};

inline CallOptions ReadCallOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  CallOptions value;
  value.subgraph = table.Scalar<uint32_t>(0, 0);
  return value;
}

struct ReshapeOptions {
  std::vector<int32_t> new_shape;
};

inline ReshapeOptions ReadReshapeOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  ReshapeOptions value;
  value.new_shape = table.Vector<int32_t>(0);
  return value;
}

struct MulOptions {
  int8_t fused_activation_function{};
};

inline MulOptions ReadMulOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  MulOptions value;
  value.fused_activation_function = table.Scalar<int8_t>(0, 0);
  return value;
}

struct TransposeConvOptions {
  int8_t padding{};
  int32_t stride_w{};
  int32_t stride_h{};
  int8_t fused_activation_function{};
};

inline TransposeConvOptions ReadTransposeConvOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  TransposeConvOptions value;
  value.padding = table.Scalar<int8_t>(0, 0);
  value.stride_w = table.Scalar<int32_t>(1, 0);
  value.stride_h = table.Scalar<int32_t>(2, 0);
  value.fused_activation_function = table.Scalar<int8_t>(3, 0);
  return value;
}

struct IfOptions {
  int32_t then_subgraph_index{};
  int32_t else_subgraph_index{};
};

inline IfOptions ReadIfOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  IfOptions value;
  value.then_subgraph_index = table.Scalar<int32_t>(0, 0);
  value.else_subgraph_index = table.Scalar<int32_t>(1, 0);
  return value;
}

struct WhileOptions {
  int32_t cond_subgraph_index{};
  int32_t body_subgraph_index{};
};

inline WhileOptions ReadWhileOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  WhileOptions value;
  value.cond_subgraph_index = table.Scalar<int32_t>(0, 0);
  value.body_subgraph_index = table.Scalar<int32_t>(1, 0);
  return value;
}

struct CallOnceOptions {
  int32_t init_subgraph_index{};
};

inline CallOnceOptions ReadCallOnceOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  CallOnceOptions value;
  value.init_subgraph_index = table.Scalar<int32_t>(0, 0);
  return value;
}

using BuiltinOptions = std::variant<std::monostate, Conv2DOptions, DepthwiseConv2DOptions, FullyConnectedOptions, CallOptions, ReshapeOptions, MulOptions, TransposeConvOptions, IfOptions, WhileOptions, CallOnceOptions>;

// Nothing where the type is another one or none.
inline BuiltinOptions ReadBuiltinOptions(const Table& table, int slot) {
  switch (table.Scalar<uint8_t>(slot - 1, 0)) {
    case 1: return table.Member<BuiltinOptions>(slot, ReadConv2DOptions);
    case 2: return table.Member<BuiltinOptions>(slot, ReadDepthwiseConv2DOptions);
    case 8: return table.Member<BuiltinOptions>(slot, ReadFullyConnectedOptions);
    case 16: return table.Member<BuiltinOptions>(slot, ReadCallOptions);
    case 17: return table.Member<BuiltinOptions>(slot, ReadReshapeOptions);
    case 21: return table.Member<BuiltinOptions>(slot, ReadMulOptions);
    case 49: return table.Member<BuiltinOptions>(slot, ReadTransposeConvOptions);
    case 92: return table.Member<BuiltinOptions>(slot, ReadIfOptions);
    case 93: return table.Member<BuiltinOptions>(slot, ReadWhileOptions);
    case 103: return table.Member<BuiltinOptions>(slot, ReadCallOnceOptions);
  }
  return {};
}

struct StableHLOCompositeOptions {
  std::string name;
  int32_t decomposition_subgraph_index{};
  Bytes composite_attributes;
  int8_t composite_attributes_format{};
  int32_t version{};
};

inline StableHLOCompositeOptions ReadStableHLOCompositeOptions(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  StableHLOCompositeOptions value;
  value.name = table.String(0);
  value.decomposition_subgraph_index = table.Scalar<int32_t>(1, 0);
  value.composite_attributes = table.View(2);
  value.composite_attributes_format = table.Scalar<int8_t>(3, 0);
  value.version = table.Scalar<int32_t>(4, 0);
  return value;
}

using BuiltinOptions2 = std::variant<std::monostate, StableHLOCompositeOptions>;

// Nothing where the type is another one or none.
inline BuiltinOptions2 ReadBuiltinOptions2(const Table& table, int slot) {
  switch (table.Scalar<uint8_t>(slot - 1, 0)) {
    case 21: return table.Member<BuiltinOptions2>(slot, ReadStableHLOCompositeOptions);
  }
  return {};
}

struct Operator {
  uint32_t opcode_index{};
  std::vector<int32_t> inputs;
  std::vector<int32_t> outputs;
  BuiltinOptions options{};
  BuiltinOptions2 options_2{};
};

inline Operator ReadOperator(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Operator value;
  value.opcode_index = table.Scalar<uint32_t>(0, 0);
  value.inputs = table.Vector<int32_t>(1);
  value.outputs = table.Vector<int32_t>(2);
  value.options = ReadBuiltinOptions(table, 4);
  value.options_2 = ReadBuiltinOptions2(table, 12);
  return value;
}

struct SubGraph {
  std::vector<Tensor> tensors;
  std::vector<int32_t> inputs;
  std::vector<int32_t> outputs;
  std::vector<Operator> operators;
};

inline SubGraph ReadSubGraph(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  SubGraph value;
  value.tensors = table.Tables<Tensor>(0, ReadTensor);
  value.inputs = table.Vector<int32_t>(1);
  value.outputs = table.Vector<int32_t>(2);
  value.operators = table.Tables<Operator>(3, ReadOperator);
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

struct TensorMap {
  std::string name;
  uint32_t tensor_index{};
};

inline TensorMap ReadTensorMap(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  TensorMap value;
  value.name = table.String(0);
  value.tensor_index = table.Scalar<uint32_t>(1, 0);
  return value;
}

struct SignatureDef {
  std::vector<TensorMap> inputs;
  std::vector<TensorMap> outputs;
  uint32_t subgraph_index{};
};

inline SignatureDef ReadSignatureDef(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  SignatureDef value;
  value.inputs = table.Tables<TensorMap>(0, ReadTensorMap);
  value.outputs = table.Tables<TensorMap>(1, ReadTensorMap);
  value.subgraph_index = table.Scalar<uint32_t>(4, 0);
  return value;
}

struct Model {
  uint32_t version{};
  std::vector<OperatorCode> operator_codes;
  std::vector<SubGraph> subgraphs;
  std::vector<Buffer> buffers;
  std::vector<Metadata> metadata;
  std::vector<SignatureDef> signature_defs;
};

inline Model ReadModel(Walk& walk, uint64_t position, int depth) {
  const Table table(walk, position, depth);
  Model value;
  value.version = table.Scalar<uint32_t>(0, 0);
  value.operator_codes = table.Tables<OperatorCode>(1, ReadOperatorCode);
  value.subgraphs = table.Tables<SubGraph>(2, ReadSubGraph);
  value.buffers = table.Tables<Buffer>(4, ReadBuffer);
  value.metadata = table.Tables<Metadata>(6, ReadMetadata);
  value.signature_defs = table.Tables<SignatureDef>(7, ReadSignatureDef);
  return value;
}

// Reads a whole message. Throws FormatError when it leaves its bytes.
inline Model DecodeModel(Bytes message) {
  Walk walk(message, "TFL3");
  return ReadModel(walk, walk.Follow(0), 0);
}

}  // namespace tfptq

#endif  // TFPTQ_MODEL_SCHEMA_H_
