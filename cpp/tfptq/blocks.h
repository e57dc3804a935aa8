// Reads the block metadata of a .tflite file: what an NPU needs to run a layer in its own integer form.
//
// docs/format.md is the specification. Header-only C++17; needs the standard library and the headers beside it.
// Everything that a function returns was checked: V, H and the lengths of all vectors fit, scales are finite and
// positive. Whether the codes in the file are as described is for the caller to check, who reads them; digest.h tells
// whether they are those that were written. Names may hold anything that is UTF-8: see Printable in utf8.h.
//
//   const auto metadata = tfptq::ReadBlocks({file.data(), file.size()});
//   if (metadata) for (const auto& tensor : metadata->tensors) ... tfptq::Scale(tensor, v, h) ...

#ifndef TFPTQ_BLOCKS_H_
#define TFPTQ_BLOCKS_H_

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blocks_schema.h"
#include "json.h"
#include "model_checks.h"
#include "tensor_blocks.h"
#include "weight_records.h"

namespace tfptq {

constexpr uint32_t kSchemaVersion = 2;
constexpr const char* kMetadataKey = "TFPTQ_BLOCKS";

// Reads lines of a name and a version.
inline std::vector<Version> ReadPackages(const std::string& lines) {
  std::vector<Version> found;
  for (size_t start = 0; start < lines.size();) {
    const size_t end = std::min(lines.find('\n', start), lines.size()), space = lines.find(' ', start);
    const bool one_space = space < end && lines.find(' ', space + 1) >= end;
    if (space == start || space + 1 >= end || !one_space || end + 1 == lines.size()) {
      throw FormatError("the packages are not lines of a name and a version");
    }
    found.push_back({lines.substr(start, space - start), lines.substr(space + 1, end - space - 1)});
    start = end + 1;
  }
  return found;
}

// Reads a message with block metadata, and the scales from the file that carries it. Throws FormatError when the
// message is damaged, contradicts itself, is too new, or was made for other tensors.
inline BlockMetadata DecodeBlocks(Bytes message, const Model& model, Bytes file) {
  BlockMetadata metadata = DecodeBlockMetadata(message);
  if (metadata.schema_version < 1 || metadata.schema_version > kSchemaVersion) {
    throw FormatError("the block metadata has schema version " + std::to_string(metadata.schema_version) +
                      "; this reader knows 1 to " + std::to_string(kSchemaVersion));
  }
  if (!JsonCheck(metadata.config).IsObject()) throw FormatError("the config is no JSON object, or beyond the limits");
  if (metadata.schema_version == 1) {
    metadata.digest = {};
  } else {
    if (metadata.digest.size != 0 && metadata.digest.size != 32) throw FormatError("the digest has not 32 bytes");
    metadata.versions = ReadPackages(metadata.packages);
    metadata.tensors = RecordReader(metadata.weights, model, file).ReadAll();
  }
  std::set<std::pair<uint32_t, uint32_t>> places;
  for (const TensorBlocks& tensor : metadata.tensors) {
    Check(tensor);
    if (!places.insert({tensor.subgraph, tensor.tensor}).second) throw FormatError("a tensor is described twice");
  }
  return metadata;
}

// Reads the block metadata of a .tflite file; nothing when it carries none. Throws like DecodeBlocks.
inline std::optional<BlockMetadata> ReadBlocks(Bytes file) {
  const Model model = DecodeModel(file);
  ModelCheck(model, file).Run();
  std::vector<const Metadata*> found;
  for (const Metadata& entry : model.metadata) {
    if (entry.name == kMetadataKey) found.push_back(&entry);
  }
  if (found.empty()) return std::nullopt;
  if (found.size() > 1) throw FormatError(std::string("several metadata entries named ") + kMetadataKey);
  return DecodeBlocks(BufferBytes(model.buffers[found[0]->buffer], file), model, file);
}

}  // namespace tfptq

#endif  // TFPTQ_BLOCKS_H_
