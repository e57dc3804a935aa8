// Runs one layer of a file in integers: int8 codes in, int8 codes out. This is a reference for devices and compilers,
// written to be read. Its codes equal those of LiteRT's reference kernels for all scales but float ones of blocks.
//
//   const tfptq::BlockFile file = tfptq::ReadBlockFile(bytes);
//   tfptq::LayerFinder(file).Find(&layers, &skipped);
//   const tfptq::LayerRunner runner(file, layers[0]);
//   const tfptq::Codes output = runner.Run(input);
//   const tfptq::Cost cost = runner.CostOf({1, 32, 32, 3});

#ifndef TFPTQ_RUN_LAYER_H_
#define TFPTQ_RUN_LAYER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernel_codes.h"
#include "layers.h"
#include "requantization.h"

namespace tfptq {

// Codes of an activation, the last axis running fastest.
struct Codes {
  std::vector<int64_t> shape;
  std::vector<int8_t> values;
};

// What a layer takes for an input.
struct Cost {
  uint64_t products = 0;     // of a code of the kernel with one of the input
  uint64_t multiplies = 0;   // of an accumulator with a mantissa of 31 bits
  uint64_t rescales = 0;     // these, and shifts and small factors that combine blocks
  uint64_t multipliers = 0;  // that the device holds
  uint64_t kernel_bytes = 0;         // codes, packed at their bits
  uint64_t bias_bytes = 0;
  uint64_t scale_bytes = 0;          // multipliers of 5 bytes, shifts and factors of 4 bits
  uint64_t channel_scale_bytes = 0;  // what they would be with a multiplier for each output channel
  uint64_t activation_bytes = 0;     // read and written

  Cost& operator+=(const Cost& other) {
    products += other.products;
    multiplies += other.multiplies;
    rescales += other.rescales;
    multipliers += other.multipliers;
    kernel_bytes += other.kernel_bytes;
    bias_bytes += other.bias_bytes;
    scale_bytes += other.scale_bytes;
    channel_scale_bytes += other.channel_scale_bytes;
    activation_bytes += other.activation_bytes;
    return *this;
  }
};

class LayerRunner {
 public:
  // Reads the codes and the bias. Throws FormatError when they are not as described. `layer` and `file` must outlive
  // the runner.
  LayerRunner(const BlockFile& file, const Layer& layer)
      : layer_(layer),
        blocks_(*layer.blocks),
        plan_(blocks_, layer.input_grid.scale, layer.output_grid.scale, layer.kind == Kind::FullyConnected),
        codes_(KernelCodes(blocks_, file.model, file.bytes).Read()),
        outputs_(static_cast<int64_t>(Outputs(blocks_))),
        inputs_(static_cast<int64_t>(Inputs(blocks_))),
        taps_(static_cast<int64_t>(Taps(blocks_))),
        bias_(ReadBias(file)) {}

  // Throws std::invalid_argument when the input does not fit the layer, and std::overflow_error when an accumulator
  // does not fit 32 bits.
  Codes Run(const Codes& input) const {
    Codes output = {OutputShape(input.shape), {}};
    NeedInput(Count(input.shape) == static_cast<int64_t>(input.values.size()));
    output.values.reserve(static_cast<size_t>(Count(output.shape)));
    const int64_t channels = layer_.kind == Kind::FullyConnected ? inputs_ : input.shape[3];
    const int64_t outputs_of_group = outputs_ / (channels / inputs_);
    std::vector<const int8_t*> pixels(static_cast<size_t>(taps_));
    for (int64_t position = 0; position < Count(output.shape) / outputs_; ++position) {
      FindPixels(input, output.shape, position, &pixels);
      for (int64_t o = 0; o < outputs_; ++o) {
        output.values.push_back(OutputCode(o, pixels, o / outputs_of_group * inputs_));
      }
    }
    return output;
  }

  Cost CostOf(const std::vector<int64_t>& input_shape) const {
    const uint64_t values = static_cast<uint64_t>(Count(OutputShape(input_shape)));
    const uint64_t weights = codes_.size(), outputs = static_cast<uint64_t>(outputs_);
    const uint64_t factors = Rows(blocks_) * Columns(blocks_);
    const bool has_factors = blocks_.scale_kind != ScaleKind::Float && (Columns(blocks_) > 1 || IsShiftScaler(blocks_));
    const bool float_blocks = blocks_.scale_kind == ScaleKind::Float && Columns(blocks_) > 1;
    const uint64_t rows = has_factors ? blocks_.base.size() : Rows(blocks_);
    Cost cost;
    cost.products = values / outputs * weights;
    cost.multiplies = values * plan_.MultipliesPerOutput();
    cost.rescales = values * plan_.RescalesPerOutput();
    cost.multipliers = plan_.Multipliers();
    cost.kernel_bytes = (weights * blocks_.bits + 7) / 8;
    cost.bias_bytes = layer_.bias == nullptr ? 0 : 4 * outputs;
    cost.scale_bytes = kMultiplierBytes * (rows + (float_blocks ? factors : 0)) + (has_factors ? (factors + 1) / 2 : 0);
    cost.channel_scale_bytes = kMultiplierBytes * outputs;
    cost.activation_bytes = static_cast<uint64_t>(Count(input_shape)) + values;
    return cost;
  }

 private:
  static constexpr uint64_t kMultiplierBytes = 5;  // a mantissa of 31 bits, and an exponent
  static constexpr int64_t kMostElements = int64_t{1} << 40;

  static int64_t Count(const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t size : shape) {
      if (size < 0 || count > kMostElements / std::max<int64_t>(size, 1)) {
        throw std::invalid_argument("an activation has an impossible shape");
      }
      count *= size;
    }
    return count;
  }

  void NeedInput(bool holds) const {
    if (!holds) throw std::invalid_argument(blocks_.layer + ": the input does not fit the layer");
  }

  // [N, height, width, O], or [positions, O] of a FULLY_CONNECTED.
  std::vector<int64_t> OutputShape(const std::vector<int64_t>& input) const {
    const int64_t read = inputs_ * taps_;
    if (layer_.kind == Kind::FullyConnected) {
      NeedInput(Count(input) % read == 0);
      return {Count(input) / read, outputs_};
    }
    NeedInput(input.size() == 4 && input[3] > 0 && input[3] % inputs_ == 0 && outputs_ % (input[3] / inputs_) == 0);
    if (layer_.kind != Kind::TransposeConv) {
      return {input[0], layer_.window.Positions(input[1], 0), layer_.window.Positions(input[2], 1), outputs_};
    }
    const auto size = layer_.window.transposed_size;
    for (size_t axis = 0; axis < 2; ++axis) NeedInput(layer_.window.Positions(size[axis], axis) == input[1 + axis]);
    NeedInput(input[3] == inputs_);
    return {input[0], size[0], size[1], outputs_};
  }

  // For each tap the first channel of the pixel that it reads, or nothing where that is padding, which counts as 0.
  void FindPixels(const Codes& input, const std::vector<int64_t>& output, int64_t position,
                  std::vector<const int8_t*>* pixels) const {
    const int8_t* const values = input.values.data();
    if (layer_.kind == Kind::FullyConnected) {
      for (int64_t tap = 0; tap < taps_; ++tap) {
        (*pixels)[static_cast<size_t>(tap)] = values + (position * taps_ + tap) * inputs_;
      }
      return;
    }
    const Window& window = layer_.window;
    const bool transposed = layer_.kind == Kind::TransposeConv;
    const auto source = transposed ? &Window::TransposedSource : &Window::Source;
    const int64_t height = input.shape[1], width = input.shape[2], channels = input.shape[3];
    const int64_t column = position % output[2], row = position / output[2] % output[1];
    const int64_t sample = position / output[2] / output[1];
    for (int64_t tap = 0; tap < taps_; ++tap) {
      const int64_t y = (window.*source)(row, tap / window.kernel[1], height, 0);
      const int64_t x = (window.*source)(column, tap % window.kernel[1], width, 1);
      const int64_t place = ((sample * height + y) * width + x) * channels;
      (*pixels)[static_cast<size_t>(tap)] = y < 0 || x < 0 ? nullptr : values + place;
    }
  }

  int8_t OutputCode(int64_t output, const std::vector<const int8_t*>& pixels, int64_t first_channel) const {
    const uint64_t row = static_cast<uint64_t>(output) / blocks_.block_outputs;
    const int64_t step = blocks_.block_inputs;
    int64_t accumulator = bias_[static_cast<size_t>(output)];
    for (int64_t start = 0, column = 0; start < inputs_; start += step, ++column) {
      const int64_t end = std::min(start + step, inputs_);
      int64_t partial = 0;
      for (int64_t tap = 0; tap < taps_; ++tap) {
        const int8_t* const pixel = pixels[static_cast<size_t>(tap)];
        if (pixel == nullptr) continue;
        const int8_t* const codes = codes_.data() + (output * taps_ + tap) * inputs_;
        for (int64_t i = start; i < end; ++i) {
          partial += codes[i] * (pixel[first_channel + i] - layer_.input_grid.zero_point);
        }
      }
      accumulator += plan_.Combine(row, static_cast<uint64_t>(column), partial);
    }
    const int64_t code = layer_.output_grid.zero_point + plan_.ToOutput(row, accumulator);
    return static_cast<int8_t>(std::clamp<int64_t>(code, layer_.lowest, layer_.highest));
  }

  // [O] in the unit of the accumulator, to which a float bias is rounded, ties to even.
  std::vector<int64_t> ReadBias(const BlockFile& file) const {
    std::vector<int64_t> bias(static_cast<size_t>(outputs_), 0);
    if (layer_.bias == nullptr) return bias;
    Cursor cursor(BufferBytes(file.model.buffers[layer_.bias->buffer], file.bytes));
    for (size_t o = 0; o < bias.size(); ++o) {
      if (layer_.bias->type == TensorType::INT32) {
        bias[o] = static_cast<int32_t>(cursor.Word());
        continue;
      }
      const double unit = plan_.Unit(o / blocks_.block_outputs) * layer_.input_grid.scale;
      const double rounded = std::nearbyint(static_cast<double>(cursor.Float()) / unit);
      if (!(std::abs(rounded) < 9e18)) throw FormatError(blocks_.layer + ": a bias is not finite, or too large");
      bias[o] = static_cast<int64_t>(rounded);
    }
    return bias;
  }

  const Layer& layer_;
  const TensorBlocks& blocks_;
  Requantization plan_;
  std::vector<int8_t> codes_;  // [O, T, I]
  int64_t outputs_, inputs_, taps_;
  std::vector<int64_t> bias_;
};

}  // namespace tfptq

#endif  // TFPTQ_RUN_LAYER_H_
