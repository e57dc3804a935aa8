// Reads the records of quantized weights, "The records" in docs/format.md.
//
// A record has what the tensors of the file do not say by themselves; the scales are read from these.

#ifndef TFPTQ_WEIGHT_RECORDS_H_
#define TFPTQ_WEIGHT_RECORDS_H_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "blocks_schema.h"
#include "model_checks.h"
#include "tensor_blocks.h"

namespace tfptq {

// Fuzzers change records, and would never get past their checksums.
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
constexpr bool kAnyChecksum = true;
#else
constexpr bool kAnyChecksum = false;
#endif

// Takes parts of records one after the other; never beyond the end.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : bytes_(bytes) {}

  const uint8_t* Position() const { return bytes_.data + at_; }

  bool AtEnd() const { return at_ == bytes_.size; }

  const uint8_t* Take(uint64_t count) {
    if (count > bytes_.size - at_) throw FormatError("the block metadata ends inside the record of a weight");
    at_ += count;
    return bytes_.data + (at_ - count);
  }

  uint8_t Byte() { return *Take(1); }

  uint32_t Word() {
    const uint8_t* bytes = Take(4);
    return bytes[0] | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
  }

  float Float() {
    const uint32_t bits = Word();
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  // An unsigned LEB128.
  uint32_t Number() {
    uint64_t value = 0;
    for (int place = 0; place < 5; ++place) {
      const uint8_t byte = Byte();
      value |= uint64_t{byte & 0x7fu} << 7 * place;
      if (byte < 0x80 && value <= UINT32_MAX) return static_cast<uint32_t>(value);
    }
    throw FormatError("a number in the record of a weight has more than 32 bits");
  }

  std::vector<uint32_t> Numbers(uint32_t most) {
    std::vector<uint32_t> values(std::min(Number(), most + 1));
    if (values.size() > most) throw FormatError("the record of a weight lists too many numbers");
    for (uint32_t& value : values) value = Number();
    return values;
  }

  std::string Text() {
    const uint32_t size = Number();
    const uint8_t* const letters = Take(size);
    if (!IsUtf8(letters, size)) throw FormatError("a text in the record of a weight is not UTF-8");
    return std::string(reinterpret_cast<const char*>(letters), size);
  }

 private:
  Bytes bytes_;
  size_t at_ = 0;
};

// Reads all records of a file of `file.size` bytes.
class RecordReader {
 public:
  RecordReader(Bytes records, const Model& model, Bytes file)
      : source_(records), model_(model), file_(file), scales_left_(4 * uint64_t{file.size}) {}

  std::vector<TensorBlocks> ReadAll() {
    std::vector<TensorBlocks> found;
    while (!source_.AtEnd()) found.push_back(Read());
    return found;
  }

 private:
  enum Flag {
    kSubgraph = 1,
    kLayer = 2,
    kShape = 4,
    kAxes = 8,
    kInputsFirst = 16,
    kScales = 32,
    kShared = 64,
    kBase = 128
  };

  TensorBlocks Read() {
    TensorBlocks blocks;
    const uint8_t* const start = source_.Position();
    const uint8_t head = source_.Byte();
    blocks.bits = head & 15;
    blocks.scale_kind = static_cast<ScaleKind>(head >> 4);
    blocks.layout = static_cast<Layout>(source_.Byte());
    flags_ = source_.Byte();
    blocks.tensor = source_.Number();
    blocks.subgraph = Has(kSubgraph) ? source_.Number() : 0;
    Name(blocks.scale_kind);
    Name(blocks.layout);
    tensor_ = &TensorAt(blocks.subgraph, blocks.tensor);
    blocks.tensor_name = tensor_->name;
    Require(BufferBytes(model_.buffers[tensor_->buffer], file_).size > 0, "it is not a constant");
    blocks.layer = Has(kLayer) ? source_.Text() : LayerOf(tensor_->name);
    ReadAxes(&blocks);
    blocks.block_outputs = source_.Number();
    if (blocks.block_outputs == 0) blocks.block_outputs = static_cast<uint32_t>(Outputs(blocks));
    blocks.block_inputs = source_.Number();
    if (blocks.block_inputs == 0) {
      Require(Inputs(blocks) <= UINT32_MAX, "impossible shape");
      blocks.block_inputs = static_cast<uint32_t>(Inputs(blocks));
    }
    CheckShape(blocks);
    const bool in_constant = ScalesInConstant(blocks.layout);
    Require(in_constant == Has(kScales), "its scales are not where its layout has them");
    constant_ = in_constant ? &TensorAt(blocks.subgraph, source_.Number()) : nullptr;
    const uint64_t rows = Rows(blocks), columns = Columns(blocks);
    Require(columns <= scales_left_ / rows, "the weights have more scales than the file can hold");
    scales_left_ -= rows * columns;
    blocks.scale_kind == ScaleKind::Float ? ReadFloat(&blocks) : ReadFactors(&blocks);
    blocks.granularity = GranularityOf(blocks);
    const uint32_t checksum = Checksum(start, source_.Position(), blocks);
    const bool same = source_.Word() == checksum || kAnyChecksum;
    Require(same, "the checksum differs: its name, shape, scales or metadata have been changed");
    return blocks;
  }

  void ReadAxes(TensorBlocks* blocks) {
    if (Has(kShape)) {
      blocks->shape = source_.Numbers(8);
    } else {
      for (const int32_t size : tensor_->shape) {
        Require(size >= 0, "impossible shape");
        blocks->shape.push_back(static_cast<uint32_t>(size));
      }
    }
    Require(!(Has(kAxes) && Has(kInputsFirst)), "two ways to tell its axes");
    Require(!blocks->shape.empty(), "impossible shape");
    const uint32_t last = static_cast<uint32_t>(blocks->shape.size() - 1);
    std::vector<uint32_t> axes = {0, last};
    if (Has(kInputsFirst)) axes = {last, 0};
    if (Has(kAxes)) axes = source_.Numbers(8);
    Require(!axes.empty(), "no output axis");
    blocks->output_axis = axes[0];
    blocks->input_axes.assign(axes.begin() + 1, axes.end());
    CheckAxes(*blocks);
  }

  void ReadFloat(TensorBlocks* blocks) {
    Require(!Has(kShared) && !Has(kBase), "float scales have no base");
    Require(constant_ != nullptr || Columns(*blocks) == 1, "float blocks cannot lie in a layout on integers");
    blocks->base = {1.0f};
    for (uint64_t row = 0; row < Rows(*blocks); ++row) {
      for (uint64_t column = 0; column < Columns(*blocks); ++column) {
        blocks->float_factors.push_back(FileScale(*blocks, row, column));
      }
    }
  }

  void ReadFactors(TensorBlocks* blocks) {
    const int width = source_.Byte(), offset = static_cast<int8_t>(source_.Byte());
    const uint64_t rows = Rows(*blocks), columns = Columns(*blocks);
    if (Has(kBase)) {
      const uint64_t count = Has(kShared) ? 1 : rows;
      for (uint64_t i = 0; i < count; ++i) blocks->base.push_back(source_.Float());
    }
    if (width == 255) {
      const bool fits = blocks->scale_kind == ScaleKind::Shift && Has(kShared) && !Has(kBase) && columns == 1;
      Require(fits, "its factors do not follow from scales");
      return DeriveShifts(blocks, offset);
    }
    Require(width <= 8, "factors of more than 8 bits");
    const uint8_t* codes = source_.Take((rows * columns * width + 7) / 8);
    for (uint64_t i = 0; i < rows * columns; ++i) {
      int factor = offset;
      for (uint64_t bit = 0; bit < static_cast<uint64_t>(width); ++bit) {
        const uint64_t at = i * width + bit;
        factor += (codes[at / 8] >> at % 8 & 1) << bit;
      }
      Require(factor <= 127, "factor out of range");
      blocks->integer_factors.push_back(static_cast<int8_t>(factor));
    }
    if (!Has(kBase)) DeriveBase(blocks);
  }

  // The base of each row, from the scale that the file has of it.
  void DeriveBase(TensorBlocks* blocks) {
    const uint64_t columns = Columns(*blocks), rows = Has(kShared) ? 1 : Rows(*blocks);
    const bool states_blocks = constant_ != nullptr || columns == 1;
    for (uint64_t row = 0; row < rows; ++row) {
      const auto factors = blocks->integer_factors.begin() + static_cast<int64_t>(row * columns);
      const float scale = FileScale(*blocks, row, 0);
      if (blocks->scale_kind == ScaleKind::Integer) {
        blocks->base.push_back(states_blocks ? scale / static_cast<float>(*factors) : scale);
      } else {
        const auto lowest = std::min_element(factors, factors + static_cast<int64_t>(columns));
        blocks->base.push_back(std::ldexp(scale, -(states_blocks ? *factors : *lowest)));
      }
    }
  }

  // One base, and shifts, of rows whose scales are powers of two apart.
  void DeriveShifts(TensorBlocks* blocks, int largest) {
    std::vector<float> scales;
    for (uint64_t row = 0; row < Rows(*blocks); ++row) scales.push_back(FileScale(*blocks, row, 0));
    for (const float scale : scales) Require(std::isfinite(scale) && scale > 0, "scales must be finite and positive");
    const float base = std::ldexp(*std::max_element(scales.begin(), scales.end()), -largest);
    Require(std::isfinite(base) && base > 0, "scales must be finite and positive");
    int exponent;
    std::frexp(base, &exponent);
    blocks->base = {base};
    for (const float scale : scales) {
      int own;
      std::frexp(scale, &own);
      blocks->integer_factors.push_back(static_cast<int8_t>(std::clamp(own - exponent, -15, 15)));
      Require(std::ldexp(base, blocks->integer_factors.back()) == scale, "its scales are not powers of two apart");
    }
  }

  // What the file has of the scale of a block; in the quantization parameters of the tensor, of its row.
  float FileScale(const TensorBlocks& blocks, uint64_t row, uint64_t column) {
    const std::vector<float>& own = tensor_->quantization.scale;
    const uint64_t output = row * blocks.block_outputs;
    if (constant_ == nullptr) {
      Require(own.size() == 1 || own.size() == Outputs(blocks), "scales of the wrong number");
      return own[own.size() == 1 ? 0 : output];
    }
    if (blocks.layout == Layout::Native) {
      Require(constant_->type == TensorType::FLOAT16, "its block scales are not FLOAT16");
      Require(constant_->shape.size() == 2 && static_cast<uint64_t>(constant_->shape[0]) == Outputs(blocks) &&
                  static_cast<uint64_t>(constant_->shape[1]) == Columns(blocks),
              "block scales of the wrong shape");
      const uint8_t* bytes = Element(output * Columns(blocks) + column, 2);
      return Half(static_cast<uint16_t>(bytes[0] | bytes[1] << 8));
    }
    Require(constant_->type == TensorType::FLOAT32 && own.size() == 1, "its block scales are no float32 factors");
    const uint8_t* bytes = Element(FactorPlace(FirstWeight(blocks, output, column)), 4);
    return Cursor({bytes, 4}).Float() * own[0];
  }

  // Where the first weight of a block stands in the kernel, in row-major order.
  uint64_t FirstWeight(const TensorBlocks& blocks, uint64_t output, uint64_t column) {
    std::vector<uint64_t> steps(blocks.shape.size(), 1);
    for (size_t axis = steps.size() - 1; axis > 0; --axis) steps[axis - 1] = steps[axis] * blocks.shape[axis];
    const bool same_size = steps[0] * blocks.shape[0] == Elements(tensor_->shape);
    Require(same_size, "the shape does not have the elements of the tensor");
    uint64_t place = output * steps[blocks.output_axis], input = column * blocks.block_inputs;
    for (size_t i = blocks.input_axes.size(); i > 0; --i) {
      const uint32_t axis = blocks.input_axes[i - 1];
      place += input % blocks.shape[axis] * steps[axis];
      input /= blocks.shape[axis];
    }
    return place;
  }

  // Which element of the constant of scales falls on an element of the tensor of codes, over which it broadcasts.
  uint64_t FactorPlace(uint64_t place) {
    const std::vector<int32_t>&codes = tensor_->shape, &factors = constant_->shape;
    Require(!codes.empty() && factors.size() <= codes.size(), "its block scales do not broadcast");
    uint64_t found = 0, step = 1;
    for (size_t i = 1; i <= codes.size(); ++i) {
      const uint64_t size = static_cast<uint64_t>(codes[codes.size() - i]), index = place % size;
      place /= size;
      if (i > factors.size()) continue;
      const uint64_t kept = static_cast<uint64_t>(factors[factors.size() - i]);
      Require(kept == 1 || kept == size, "its block scales do not broadcast");
      if (kept > 1) found += index * step;
      step *= kept;
    }
    return found;
  }

  // Number of elements of a constant; throws where it is none.
  uint64_t Elements(const std::vector<int32_t>& shape) {
    const uint64_t most = 8 * uint64_t{file_.size};
    uint64_t count = 1;
    for (const int32_t size : shape) {
      Require(size > 0 && count <= most / static_cast<uint64_t>(size), "impossible shape");
      count *= static_cast<uint64_t>(size);
    }
    return count;
  }

  // An element of the constant of scales.
  const uint8_t* Element(uint64_t index, uint64_t width) {
    Require(constant_->buffer < model_.buffers.size(), "its block scales lie in a buffer that does not exist");
    const Bytes bytes = BufferBytes(model_.buffers[constant_->buffer], file_);
    const uint64_t count = bytes.size / width;
    Require(count == Elements(constant_->shape) && index < count, "its block scales are no constant");
    return bytes.data + index * width;
  }

  static float Half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float digits = static_cast<float>(exponent == 0 ? fraction : fraction + 1024);
    float value = std::ldexp(digits, std::max(exponent, 1) - 25);
    if (exponent == 31) {
      value = fraction == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    }
    return bits >> 15 ? -value : value;
  }

  const Tensor& TensorAt(uint32_t subgraph, uint32_t tensor) {
    if (subgraph >= model_.subgraphs.size() || tensor >= model_.subgraphs[subgraph].tensors.size()) {
      throw FormatError("tensor " + std::to_string(tensor) + " of subgraph " + std::to_string(subgraph) +
                        ", which the metadata describes, does not exist");
    }
    return model_.subgraphs[subgraph].tensors[tensor];
  }

  // The layer that the name of a tensor tells.
  static std::string LayerOf(const std::string& name) {
    std::string part = name;
    const size_t end = name.rfind('/');
    if (end != std::string::npos) {
      const size_t before = end == 0 ? std::string::npos : name.rfind('/', end - 1);
      const size_t start = before == std::string::npos ? 0 : before + 1;
      part = name.substr(start, end - start);
    }
    const size_t stem = part.find_last_not_of("0123456789");
    const bool numbered = stem != std::string::npos && stem > 0 && stem + 1 < part.size() && part[stem] == '_';
    return numbered ? part.substr(0, stem) : part;
  }

  // CRC-32 of a record, of what it takes from the file, and of the scales.
  static uint32_t Checksum(const uint8_t* start, const uint8_t* end, const TensorBlocks& blocks) {
    uint32_t sum = 0xffffffffu;
    const auto byte = [&sum](uint32_t value) {
      sum ^= value & 0xffu;
      for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0u);
    };
    const auto word = [&byte](uint32_t value) {
      for (int place = 0; place < 4; ++place) byte(value >> 8 * place);
    };
    for (; start != end; ++start) byte(*start);
    for (const char letter : blocks.tensor_name) byte(static_cast<uint8_t>(letter));
    for (const uint32_t size : blocks.shape) word(size);
    for (uint64_t row = 0; row < Rows(blocks); ++row) {
      for (uint64_t column = 0; column < Columns(blocks); ++column) {
        const float scale = Scale(blocks, row, column);
        uint32_t bits;
        std::memcpy(&bits, &scale, sizeof(bits));
        word(bits);
      }
    }
    return ~sum;
  }

  bool Has(Flag flag) const { return (flags_ & flag) != 0; }

  void Require(bool holds, const char* problem) const {
    if (!holds) throw FormatError("block metadata of tensor " + tensor_->name + ": " + problem);
  }

  Cursor source_;
  const Model& model_;
  Bytes file_;
  uint64_t scales_left_;
  uint8_t flags_ = 0;
  const Tensor* tensor_ = nullptr;    // of the codes
  const Tensor* constant_ = nullptr;  // of the block scales, if they are one
};

}  // namespace tfptq

#endif  // TFPTQ_WEIGHT_RECORDS_H_
