// Tells for each of many files whether the reader of block metadata accepts it: 1, or 0 for a file that it refuses.
// Standard input has the files, each behind its size, four bytes, the least significant first.
//
// Build:   g++ -std=c++17 -O2 -o accept_files cpp/accept_files.cc

#include <cstdint>
#include <cstdio>
#include <vector>

#include "tfptq/blocks.h"

int main() {
  uint8_t head[4];
  while (std::fread(head, 1, 4, stdin) == 4) {
    const uint32_t size = head[0] | uint32_t{head[1]} << 8 | uint32_t{head[2]} << 16 | uint32_t{head[3]} << 24;
    std::vector<uint8_t> file(size);
    if (std::fread(file.data(), 1, size, stdin) != size) return 2;
    bool accepted = true;
    try {
      tfptq::ReadBlocks({file.data(), file.size()});
    } catch (const tfptq::FormatError&) {
      accepted = false;
    }
    std::putchar(accepted ? '1' : '0');
    std::fflush(stdout);
  }
  return 0;
}
