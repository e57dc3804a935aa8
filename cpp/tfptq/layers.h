// The layers of a .tflite file that an integer device can run: operators with a kernel that the block metadata
// describes, between int8 activations. These are the operator's own tensors, or where it computes on floats, those on
// the other side of its DEQUANTIZE and QUANTIZE.

#ifndef TFPTQ_LAYERS_H_
#define TFPTQ_LAYERS_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "blocks.h"
#include "window.h"

namespace tfptq {

enum class Kind : int32_t { Conv2D = 3, DepthwiseConv2D = 4, FullyConnected = 9, TransposeConv = 67 };

inline const char* Name(Kind kind) {
  switch (kind) {
    case Kind::Conv2D: return "CONV_2D";
    case Kind::DepthwiseConv2D: return "DEPTHWISE_CONV_2D";
    case Kind::FullyConnected: return "FULLY_CONNECTED";
    case Kind::TransposeConv: return "TRANSPOSE_CONV";
  }
  throw FormatError("unknown kind of operator");
}

// real = scale * (code - zero_point).
struct Grid {
  double scale = 0;
  int zero_point = 0;
};

// One layer. Tensors are indexes into the main subgraph.
struct Layer {
  const TensorBlocks* blocks = nullptr;
  Kind kind = Kind::Conv2D;
  size_t position = 0;            // of the operator
  int32_t input = -1;
  int32_t output = -1;
  const Tensor* bias = nullptr;   // INT32 or FLOAT32 constant of O elements, or nothing
  Grid input_grid, output_grid;
  int lowest = -128, highest = 127;  // output codes
  Window window;                  // of a convolution
};

// A description that is no layer, and why.
struct Skipped {
  std::string layer;
  std::string reason;
};

// A file that carries block metadata. `bytes` must outlive it.
struct BlockFile {
  Bytes bytes;
  Model model;
  BlockMetadata metadata;
};

// Throws FormatError when the file is damaged or carries no block metadata.
inline BlockFile ReadBlockFile(Bytes bytes) {
  std::optional<BlockMetadata> metadata = ReadBlocks(bytes);
  if (!metadata) throw FormatError("carries no block metadata");
  return {bytes, DecodeModel(bytes), std::move(*metadata)};
}

// Finds the layers of the main subgraph of a file, in order of execution.
class LayerFinder {
 public:
  explicit LayerFinder(const BlockFile& file) : file_(file), graph_(file.model.subgraphs[0]) {
    for (const TensorBlocks& blocks : file.metadata.tensors) {
      if (blocks.subgraph == 0) described_[static_cast<int32_t>(blocks.tensor)] = &blocks;
    }
    for (size_t at = 0; at < graph_.operators.size(); ++at) {
      for (const int32_t index : graph_.operators[at].outputs) {
        const bool is_new = producers_.emplace(index, at).second;
        if (!is_new) written_twice_.insert(index);
      }
      const Operator& operation = graph_.operators[at];
      const bool quantizes = Code(operation) == kQuantize && !operation.inputs.empty() && !operation.outputs.empty();
      if (quantizes) quantized_.emplace(operation.inputs[0], operation.outputs[0]);
    }
  }

  // Each description is in one of the results, or in `layers` several times.
  void Find(std::vector<Layer>* layers, std::vector<Skipped>* skipped) const {
    std::set<const TensorBlocks*> read;
    for (size_t at = 0; at < graph_.operators.size(); ++at) {
      const TensorBlocks* const blocks = Description(graph_.operators[at]);
      if (blocks == nullptr) continue;
      read.insert(blocks);
      try {
        layers->push_back(MakeLayer(at, *blocks));
      } catch (const Unsupported& reason) {
        skipped->push_back({blocks->layer, reason.what()});
      }
    }
    for (const TensorBlocks& blocks : file_.metadata.tensors) {
      if (read.count(&blocks) > 0) continue;
      skipped->push_back({blocks.layer, blocks.subgraph == 0 ? "no operator reads it by the way of its layout"
                                                             : "it is not in the main subgraph"});
    }
  }

 private:
  static constexpr int32_t kDequantize = 6, kMul = 18, kReshape = 22, kQuantize = 114;

  // A layer that has no integer form here.
  class Unsupported : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
  };

  static void Need(bool holds, const char* problem) {
    if (!holds) throw Unsupported(problem);
  }

  int32_t Code(const Operator& operation) const {
    const OperatorCode& code = file_.model.operator_codes[operation.opcode_index];
    return std::max<int32_t>(code.builtin_code, code.deprecated_builtin_code);
  }

  static bool IsKind(int32_t code) {
    return code == 3 || code == 4 || code == 9 || code == 67;
  }

  static int32_t Input(const Operator& operation, size_t place) {
    return place < operation.inputs.size() ? operation.inputs[place] : -1;
  }

  // The operator of a kind that alone writes a tensor, or nothing.
  const Operator* Producer(int32_t index, int32_t code) const {
    const auto found = producers_.find(index);
    if (found == producers_.end() || written_twice_.count(index) > 0) return nullptr;
    const Operator& operation = graph_.operators[found->second];
    return Code(operation) == code ? &operation : nullptr;
  }

  const TensorBlocks* Described(int32_t index, bool by_a_constant_of_scales) const {
    const auto found = described_.find(index);
    if (found == described_.end()) return nullptr;
    const Layout layout = found->second->layout;
    const bool unpacks = layout == Layout::Inline || layout == Layout::Composite;
    return unpacks == by_a_constant_of_scales ? found->second : nullptr;
  }

  // The description of the kernel that an operator reads, or nothing.
  const TensorBlocks* Description(const Operator& operation) const {
    if (!IsKind(Code(operation))) return nullptr;
    const int32_t kernel = Input(operation, 1);
    if (const TensorBlocks* const own = Described(kernel, false)) return own;
    const Operator* const reshape = Producer(kernel, kReshape);
    const Operator* const multiply = reshape == nullptr ? nullptr : Producer(Input(*reshape, 0), kMul);
    if (multiply == nullptr) return nullptr;
    for (size_t place = 0; place < 2; ++place) {
      const Operator* const dequantize = Producer(Input(*multiply, place), kDequantize);
      if (dequantize != nullptr) return Described(Input(*dequantize, 0), true);
    }
    return nullptr;
  }

  Layer MakeLayer(size_t position, const TensorBlocks& blocks) const {
    const Operator& operation = graph_.operators[position];
    Layer layer;
    layer.blocks = &blocks;
    layer.kind = static_cast<Kind>(Code(operation));
    layer.position = position;
    CheckAxes(layer);
    const bool transposed = layer.kind == Kind::TransposeConv;
    layer.input = Int8Source(Input(operation, transposed ? 2 : 0));
    Need(operation.outputs.size() == 1, "its operator has several outputs");
    layer.output = Int8Result(operation.outputs[0]);
    layer.input_grid = GridOf(layer.input);
    layer.output_grid = GridOf(layer.output);
    layer.bias = Bias(Input(operation, transposed ? 3 : 2), Outputs(blocks));
    SetOptions(operation, &layer);
    return layer;
  }

  // Whether the kernel has the axes that its operator reads; a FULLY_CONNECTED may stand for a convolution.
  static void CheckAxes(const Layer& layer) {
    const TensorBlocks& blocks = *layer.blocks;
    const std::vector<uint32_t>& inputs = blocks.input_axes;
    const size_t rank = blocks.shape.size();
    bool fits = blocks.output_axis == 0 && inputs.size() == 1 && inputs[0] == rank - 1;
    if (layer.kind == Kind::DepthwiseConv2D) {
      fits = blocks.output_axis == 3 && (inputs.empty() || inputs == std::vector<uint32_t>{0});
      fits = fits && rank == 4 && blocks.shape[0] == 1;
    }
    const bool dense = layer.kind == Kind::FullyConnected;
    Need(fits && (rank == 4 || (dense && rank == 2)), "its operator reads no kernel of such axes");
  }

  int32_t Int8Source(int32_t index) const {
    if (index >= 0 && TensorAt(index).type == TensorType::FLOAT32) {
      const Operator* const dequantize = Producer(index, kDequantize);
      if (dequantize != nullptr) index = Input(*dequantize, 0);
    }
    return RequireInt8(index);
  }

  int32_t Int8Result(int32_t index) const {
    if (index >= 0 && TensorAt(index).type == TensorType::FLOAT32) {
      const auto found = quantized_.find(index);
      if (found != quantized_.end()) index = found->second;
    }
    return RequireInt8(index);
  }

  int32_t RequireInt8(int32_t index) const {
    const bool fits = index >= 0 && TensorAt(index).type == TensorType::INT8;
    Need(fits && TensorAt(index).quantization.scale.size() == 1, "its activations are not int8 with one scale");
    return index;
  }

  Grid GridOf(int32_t index) const {
    const QuantizationParameters& found = TensorAt(index).quantization;
    const double scale = static_cast<double>(found.scale[0]);
    const int64_t zero_point = found.zero_point.empty() ? 0 : found.zero_point[0];
    Need(std::isfinite(scale) && scale > 0 && zero_point >= -128 && zero_point <= 127, "its activations have no grid");
    return {scale, static_cast<int>(zero_point)};
  }

  const Tensor* Bias(int32_t index, uint64_t outputs) const {
    if (index < 0) return nullptr;
    const Tensor& bias = TensorAt(index);
    Need(bias.type == TensorType::INT32 || bias.type == TensorType::FLOAT32, "its bias is not INT32 or FLOAT32");
    const uint64_t bytes = BufferBytes(file_.model.buffers[bias.buffer], file_.bytes).size;
    Need(bytes == 4 * outputs, "its bias is no constant with an element for each output channel");
    return &bias;
  }

  void SetOptions(const Operator& operation, Layer* layer) const {
    if (const auto* it = std::get_if<Conv2DOptions>(&operation.options); it && layer->kind == Kind::Conv2D) {
      SetWindow(*it, it->dilation_h_factor, it->dilation_w_factor, layer);
    } else if (const auto* dw = std::get_if<DepthwiseConv2DOptions>(&operation.options);
               dw && layer->kind == Kind::DepthwiseConv2D) {
      SetWindow(*dw, dw->dilation_h_factor, dw->dilation_w_factor, layer);
    } else if (const auto* tc = std::get_if<TransposeConvOptions>(&operation.options);
               tc && layer->kind == Kind::TransposeConv) {
      SetWindow(*tc, 1, 1, layer);
      layer->window.transposed_size = TransposedSize(operation);
    } else if (const auto* fc = std::get_if<FullyConnectedOptions>(&operation.options);
               fc && layer->kind == Kind::FullyConnected) {
      Need(fc->weights_format == 0, "its operator reads a shuffled kernel");
      SetClamp(fc->fused_activation_function, layer);
    } else {
      throw Unsupported("its operator has no options");
    }
  }

  template <typename Options>
  void SetWindow(const Options& options, int32_t dilation_h, int32_t dilation_w, Layer* layer) const {
    const std::vector<uint32_t>& shape = layer->blocks->shape;
    Window window;
    window.kernel = {shape[1], shape[2]};
    window.stride = {options.stride_h, options.stride_w};
    window.dilation = {dilation_h, dilation_w};
    window.same = options.padding == 0;
    for (const auto& steps : {window.stride, window.dilation}) {
      for (const int64_t step : steps) Need(step >= 1 && step <= 32768, "its operator has impossible steps");
    }
    Need(options.padding == 0 || options.padding == 1, "its operator has an unknown padding");
    layer->window = window;
    SetClamp(options.fused_activation_function, layer);
  }

  // Height and width of the output of a TRANSPOSE_CONV.
  std::array<int64_t, 2> TransposedSize(const Operator& operation) const {
    const int32_t index = Input(operation, 0);
    std::vector<int32_t> sizes = TensorAt(operation.outputs[0]).shape;
    if (index >= 0) {
      const Bytes data = BufferBytes(file_.model.buffers[TensorAt(index).buffer], file_.bytes);
      if (data.size > 0) {
        Need(TensorAt(index).type == TensorType::INT32 && data.size == 16, "its operator has an output of no size");
        Cursor cursor(data);
        sizes.clear();
        for (int axis = 0; axis < 4; ++axis) sizes.push_back(static_cast<int32_t>(cursor.Word()));
      }
    }
    const bool fits = sizes.size() == 4 && *std::min_element(sizes.begin(), sizes.end()) >= 1 &&
                      int64_t{sizes[1]} * sizes[2] <= int64_t{1} << 24;
    Need(fits, "its operator has an output of no size");
    return {sizes[1], sizes[2]};
  }

  // Output codes that a fused activation function lets through.
  static void SetClamp(int8_t function, Layer* layer) {
    const Grid grid = layer->output_grid;
    const auto code = [grid](float real) {
      double ratio = std::clamp(static_cast<double>(real) / grid.scale, -256.0, 256.0);
      // Kernels divide in float32; beyond 255 steps all codes saturate.
      if (std::abs(ratio) < 256.0) ratio = static_cast<double>(real / static_cast<float>(grid.scale));
      return grid.zero_point + static_cast<int>(std::copysign(std::floor(std::abs(ratio) + 0.5), ratio));
    };
    switch (function) {
      case 0: return;
      case 1: layer->lowest = std::max(-128, code(0)); return;
      case 2: layer->lowest = std::max(-128, code(-1)); layer->highest = std::min(127, code(1)); return;
      case 3: layer->lowest = std::max(-128, code(0)); layer->highest = std::min(127, code(6)); return;
      default: throw Unsupported("its fused activation function has no integer form here");
    }
  }

  const Tensor& TensorAt(int32_t index) const { return graph_.tensors[static_cast<size_t>(index)]; }

  const BlockFile& file_;
  const SubGraph& graph_;
  std::map<int32_t, const TensorBlocks*> described_;
  std::map<int32_t, size_t> producers_;
  std::set<int32_t> written_twice_;
  std::map<int32_t, int32_t> quantized_;
};

}  // namespace tfptq

#endif  // TFPTQ_LAYERS_H_
