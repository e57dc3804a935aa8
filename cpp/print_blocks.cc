// Prints the block metadata of .tflite files:   print_blocks model.tflite ...
//
// Build:   g++ -std=c++17 -O2 -o print_blocks cpp/print_blocks.cc
// Exit status: 0, or 1 when a file could not be read or carries no block metadata, or 2 without arguments.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tfptq/blocks.h"
#include "tfptq/digest.h"

namespace {

std::vector<uint8_t> ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot be opened");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string List(const std::vector<uint32_t>& numbers) {
  std::string text;
  for (const uint32_t number : numbers) text += " " + std::to_string(number);
  return text;
}

// One line per row of blocks: the scales, exact to the last bit, and the integers that make them.
void PrintRow(const tfptq::TensorBlocks& tensor, uint64_t row) {
  const uint64_t columns = tfptq::Columns(tensor);
  std::printf("  row %llu:", static_cast<unsigned long long>(row));
  for (uint64_t column = 0; column < columns; ++column) {
    std::printf(" %.9g", static_cast<double>(tfptq::Scale(tensor, row, column)));
    if (!tensor.integer_factors.empty()) std::printf(" (%d)", tensor.integer_factors[row * columns + column]);
  }
  std::printf("\n");
}

void PrintTensor(const tfptq::TensorBlocks& tensor) {
  std::printf("tensor %u:%u %s\n", tensor.subgraph, tensor.tensor,
              tfptq::Printable(tensor.tensor_name).c_str());
  std::printf("  layer %s\n", tfptq::Printable(tensor.layer).c_str());
  std::printf("  %d bits, granularity %s, scales %s, layout %s\n", tensor.bits, tfptq::Name(tensor.granularity),
              tfptq::Name(tensor.scale_kind), tfptq::Name(tensor.layout));
  std::printf("  shape%s, output axis %u, input axes%s\n", List(tensor.shape).c_str(), tensor.output_axis,
              List(tensor.input_axes).c_str());
  std::printf("  blocks of %u x %u channels\n", tensor.block_outputs, tensor.block_inputs);
  for (uint64_t row = 0; row < tfptq::Rows(tensor); ++row) PrintRow(tensor, row);
}

void PrintFile(const std::string& path) {
  const std::vector<uint8_t> file = ReadFile(path);
  const tfptq::Bytes bytes = {file.data(), file.size()};
  const std::optional<tfptq::BlockMetadata> metadata = tfptq::ReadBlocks(bytes);
  if (!metadata) throw std::runtime_error("carries no block metadata");
  std::printf("schema version %u\n", metadata->schema_version);
  std::printf("config %s\n", tfptq::Printable(metadata->config).c_str());
  std::printf("seed %llu\n", static_cast<unsigned long long>(metadata->seed));
  for (const tfptq::Version& entry : metadata->versions) {
    std::printf("version %s %s\n", tfptq::Printable(entry.name).c_str(), tfptq::Printable(entry.version).c_str());
  }
  const bool same = metadata->digest.size != 0 && tfptq::HasDigest(bytes, metadata->digest);
  std::printf("digest %s\n", same ? "equal" : metadata->digest.size == 0 ? "none" : "different");
  for (const tfptq::TensorBlocks& tensor : metadata->tensors) PrintTensor(tensor);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "usage: print_blocks model.tflite ...\n");
    return 2;
  }
  int status = 0;
  for (int i = 1; i < count; ++i) {
    try {
      PrintFile(arguments[i]);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", arguments[i], tfptq::Printable(error.what()).c_str());
      status = 1;
    }
  }
  return status;
}
