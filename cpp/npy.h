// Reads .npy files of int8 arrays.

#ifndef TFPTQ_CPP_NPY_H_
#define TFPTQ_CPP_NPY_H_

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "tfptq/run_layer.h"

// Throws std::runtime_error where it is another file.
inline tfptq::Codes ReadNpy(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + " cannot be opened");
  const std::string bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  // The magic, a version of two bytes, the size of the header in two bytes, and the header, a dict of Python.
  const bool is_npy = bytes.size() >= 10 && bytes.compare(0, 7, "\x93NUMPY\x01") == 0;
  if (!is_npy) throw std::runtime_error(path + " is no .npy file");
  const size_t size = static_cast<uint8_t>(bytes[8]) | static_cast<size_t>(static_cast<uint8_t>(bytes[9])) << 8;
  const std::string header = bytes.substr(10, size);
  const size_t open = header.find("'shape': ("), close = header.find(')', open);
  const auto has = [&header](const char* text) { return header.find(text) != std::string::npos; };
  const bool plain = has("'|i1'") && has("'fortran_order': False") && close != std::string::npos;
  if (!plain) throw std::runtime_error(path + " has no int8 array in row-major order");
  tfptq::Codes codes;
  int64_t count = 1;
  for (size_t at = open + 10; at < close; at = std::min(header.find(',', at), close) + 1) {
    if (header.find_first_of("0123456789", at) >= close) break;
    codes.shape.push_back(std::strtoll(header.c_str() + at, nullptr, 10));
    count *= codes.shape.back();
  }
  codes.values.assign(bytes.begin() + static_cast<int64_t>(10 + size), bytes.end());
  if (count != static_cast<int64_t>(codes.values.size())) throw std::runtime_error(path + " is cut short");
  return codes;
}

#endif  // TFPTQ_CPP_NPY_H_
