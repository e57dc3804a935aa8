// The reader of block metadata as a target of libFuzzer. Files that are refused throw FormatError; anything else is a bug.
//
// Build:   clang++ -std=c++17 -g -O1 -fsanitize=fuzzer,address,undefined -o fuzz_reader cpp/fuzz_reader.cc
// Run:     ./fuzz_reader -max_len=4096 found tests/conformance tests/conformance/refused tests/conformance/unverified
//
// -fsanitize=fuzzer defines FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION, which lets records with wrong checksums pass: else
// nothing that the fuzzer changes in one would be read any further.

#include <cstddef>
#include <cstdint>

#include "tfptq/blocks.h"
#include "tfptq/digest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const tfptq::Bytes file = {data, size};
    const auto metadata = tfptq::ReadBlocks(file);
    if (metadata) tfptq::HasDigest(file, metadata->digest);
  } catch (const tfptq::FormatError&) {
  }
  return 0;
}
