// What the layers of a .tflite file take in integers, for one sample:   run_layers model.tflite
//
// And their codes against others:   run_layers model.tflite codes
//
// The folder has an int8 array `<tensor>.npy` for the input and the output of each layer, named by the number of the
// tensor in the file. `python cpp/layer_codes.py model.tflite samples.npy codes` writes those of LiteRT's reference
// kernels.
//
// Build:   g++ -std=c++17 -O2 -o run_layers cpp/run_layers.cc
// Exit status: 0, or 1 when the file could not be read or codes differ, or 2 without arguments.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "npy.h"
#include "tfptq/run_layer.h"

namespace {

std::vector<uint8_t> ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot be opened");
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

unsigned long long Wide(uint64_t value) { return value; }

void PrintHead() {
  std::printf("%12s %10s %10s %11s %9s %8s %8s %11s %11s  %s\n", "products", "multiplies", "rescales", "multipliers",
              "kernel B", "bias B", "scales B", "by channel", "activat. B", "layer");
}

void PrintCost(const tfptq::Cost& cost, const std::string& what) {
  std::printf("%12llu %10llu %10llu %11llu %9llu %8llu %8llu %11llu %11llu  %s\n", Wide(cost.products),
              Wide(cost.multiplies), Wide(cost.rescales), Wide(cost.multipliers), Wide(cost.kernel_bytes),
              Wide(cost.bias_bytes), Wide(cost.scale_bytes), Wide(cost.channel_scale_bytes),
              Wide(cost.activation_bytes), what.c_str());
}

// How many output codes of a layer differ from those in a folder.
size_t CountDifferent(const tfptq::LayerRunner& runner, const tfptq::Layer& layer, const std::string& folder) {
  const tfptq::Codes output = runner.Run(ReadNpy(folder + "/" + std::to_string(layer.input) + ".npy"));
  const tfptq::Codes expected = ReadNpy(folder + "/" + std::to_string(layer.output) + ".npy");
  if (expected.values.size() != output.values.size()) throw std::runtime_error("there are codes of another output");
  size_t different = 0;
  for (size_t i = 0; i < output.values.size(); ++i) different += output.values[i] != expected.values[i];
  std::printf("  %zu of %zu codes differ\n", different, output.values.size());
  return different;
}

// Returns whether all codes are as expected.
bool RunFile(const std::string& path, const std::string& folder) {
  const std::vector<uint8_t> bytes = ReadFile(path);
  const tfptq::BlockFile file = tfptq::ReadBlockFile({bytes.data(), bytes.size()});
  std::vector<tfptq::Layer> layers;
  std::vector<tfptq::Skipped> skipped;
  tfptq::LayerFinder(file).Find(&layers, &skipped);
  tfptq::Cost total;
  size_t different = 0;
  PrintHead();
  for (const tfptq::Layer& layer : layers) {
    const tfptq::LayerRunner runner(file, layer);
    const std::vector<int32_t>& shape = file.model.subgraphs[0].tensors[static_cast<size_t>(layer.input)].shape;
    const tfptq::Cost cost = runner.CostOf({shape.begin(), shape.end()});
    PrintCost(cost, tfptq::Printable(layer.blocks->layer) + " " + tfptq::Name(layer.kind));
    total += cost;
    if (!folder.empty()) different += CountDifferent(runner, layer, folder);
  }
  PrintCost(total, "total");
  for (const tfptq::Skipped& entry : skipped) {
    std::printf("%s is left out: %s\n", tfptq::Printable(entry.layer).c_str(), entry.reason.c_str());
  }
  return different == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2 || count > 3) {
    std::fprintf(stderr, "usage: run_layers model.tflite [folder with codes]\n");
    return 2;
  }
  try {
    return RunFile(arguments[1], count == 3 ? arguments[2] : "") ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", arguments[1], tfptq::Printable(error.what()).c_str());
    return 1;
  }
}
