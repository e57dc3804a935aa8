// The digest of what a .tflite file computes with, "Digest" in docs/format.md.
//
//   if (!metadata->digest.size) ... else if (!tfptq::HasDigest(file, metadata->digest)) ...
//
// It tells that a file was damaged, not who wrote it.

#ifndef TFPTQ_DIGEST_H_
#define TFPTQ_DIGEST_H_

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "model_checks.h"
#include "sha256.h"

namespace tfptq {

// Collects a checked model.
class ContentDigest {
 public:
  ContentDigest(const Model& model, Bytes file) : model_(model), file_(file) {}

  Sha256::Digest Run() {
    Add(Count(model_.subgraphs));
    for (const SubGraph& graph : model_.subgraphs) {
      Add(Count(graph.tensors));
      for (const Tensor& tensor : graph.tensors) AddTensor(tensor);
      Add(Count(graph.operators));
      for (const Operator& operation : graph.operators) AddOperator(operation);
      AddList(graph.inputs);
      AddList(graph.outputs);
    }
    return hash_.Finish();
  }

 private:
  static constexpr int32_t kCustom = 32;

  template <typename T>
  static uint32_t Count(const std::vector<T>& values) {
    return static_cast<uint32_t>(values.size());
  }

  // A number, least significant byte first.
  template <typename T>
  void Add(T value) {
    uint64_t bits = 0;
    if constexpr (std::is_same_v<T, float>) {
      uint32_t word;
      std::memcpy(&word, &value, sizeof(word));
      bits = word;
    } else {
      bits = static_cast<uint64_t>(value);
    }
    uint8_t bytes[sizeof(T)];
    for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<uint8_t>(bits >> 8 * i);
    hash_.Add(bytes, sizeof(T));
  }

  template <typename T>
  void AddList(const std::vector<T>& values) {
    Add(Count(values));
    for (const T value : values) Add(value);
  }

  // The digest of bytes, which are read once for each key; nothing for no bytes.
  template <typename Key>
  void AddBytes(std::map<Key, Sha256::Digest>* known, Key key, Bytes bytes) {
    if (bytes.size == 0) return Add(uint32_t{0});
    auto found = known->find(key);
    if (found == known->end()) {
      Sha256 hash;
      hash.Add(bytes.data, bytes.size);
      found = known->emplace(key, hash.Finish()).first;
    }
    Add(static_cast<uint32_t>(found->second.size()));
    hash_.Add(found->second.data(), found->second.size());
  }

  void AddTensor(const Tensor& tensor) {
    Add(static_cast<uint32_t>(tensor.type));
    AddList(tensor.shape);
    AddBytes(&buffers_, tensor.buffer, BufferBytes(model_.buffers[tensor.buffer], file_));
    const QuantizationParameters& found = tensor.quantization;
    AddList(found.scale);
    AddList(found.zero_point.empty() ? std::vector<int64_t>(found.scale.size()) : found.zero_point);
    Add(found.quantized_dimension);
    const auto* blocks = std::get_if<BlockwiseQuantization>(&found.details);
    AddList(blocks == nullptr ? std::vector<int32_t>{}
                              : std::vector<int32_t>{blocks->scales, blocks->zero_points, blocks->block_size});
  }

  void AddOperator(const Operator& operation) {
    const OperatorCode& code = model_.operator_codes[operation.opcode_index];
    const int32_t number = std::max<int32_t>(code.builtin_code, code.deprecated_builtin_code);
    const std::string& custom = number == kCustom ? code.custom_code : std::string();
    Add(static_cast<uint32_t>(number));
    AddBytes(&codes_, operation.opcode_index, {reinterpret_cast<const uint8_t*>(custom.data()), custom.size()});
    AddList(operation.inputs);
    AddList(operation.outputs);
    AddList(Options(number, operation.options));
  }

  // The options that the digest covers, of the kinds that have them.
  static std::vector<int32_t> Options(int32_t number, const BuiltinOptions& options) {
    if (const auto* it = std::get_if<Conv2DOptions>(&options); it != nullptr && number == 3) {
      return {it->padding, it->stride_w, it->stride_h, it->fused_activation_function, it->dilation_w_factor,
              it->dilation_h_factor};
    }
    if (const auto* it = std::get_if<DepthwiseConv2DOptions>(&options); it != nullptr && number == 4) {
      return {it->padding, it->stride_w, it->stride_h, it->depth_multiplier, it->fused_activation_function,
              it->dilation_w_factor, it->dilation_h_factor};
    }
    if (const auto* it = std::get_if<FullyConnectedOptions>(&options); it != nullptr && number == 9) {
      return {it->fused_activation_function, it->weights_format};
    }
    if (const auto* it = std::get_if<MulOptions>(&options); it != nullptr && number == 18) {
      return {it->fused_activation_function};
    }
    if (const auto* it = std::get_if<TransposeConvOptions>(&options); it != nullptr && number == 67) {
      return {it->padding, it->stride_w, it->stride_h, it->fused_activation_function};
    }
    return {};
  }

  const Model& model_;
  Bytes file_;
  Sha256 hash_;
  std::map<uint32_t, Sha256::Digest> buffers_;
  std::map<uint32_t, Sha256::Digest> codes_;
};

// The digest of a .tflite file. Throws FormatError when it is damaged.
inline Sha256::Digest DigestOf(Bytes file) {
  const Model model = DecodeModel(file);
  ModelCheck(model, file).Run();
  return ContentDigest(model, file).Run();
}

// Whether a file has a digest, that of its metadata.
inline bool HasDigest(Bytes file, Bytes digest) {
  const Sha256::Digest found = DigestOf(file);
  return digest.size == found.size() && std::equal(found.begin(), found.end(), digest.data);
}

}  // namespace tfptq

#endif  // TFPTQ_DIGEST_H_
