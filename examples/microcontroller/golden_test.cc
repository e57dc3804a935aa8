// Runs the golden inputs on the device, and compares the outputs with those of TFLite Micro's reference kernels.

#include <cstdio>
#include <cstdlib>

#include "board.h"
#include "classify.h"
#include "model.h"
#include "model_golden.h"
#include "tensorflow/lite/micro/cortex_m_generic/debug_log_callback.h"

namespace {

template <typename... Values>
void PrintLine(const char* format, Values... values) {
  char line[120];
  std::snprintf(line, sizeof(line), format, values...);
  BoardPrint(line);
}

int LargestDifference(const int8_t* scores, const int8_t* golden) {
  int largest = 0;
  for (unsigned int at = 0; at < model::kOutputSizes[0]; ++at) {
    const int difference = std::abs(scores[at] - golden[at]);
    if (difference > largest) largest = difference;
  }
  return largest;
}

}  // namespace

int main() {
  RegisterDebugLogCallback(BoardPrint);
  PrintLine("file %u bytes, arena %u bytes of %u on a 64-bit machine\n", model::kModelBytes, ArenaBytes(),
            model::kArenaBytes);
  int worst = 0;
  for (unsigned int sample = 0; sample < model::kGoldenSamples; ++sample) {
    int8_t scores[model::kOutputSizes[0]];
    const uint64_t before = BoardInstructions();
    if (!Run(model::kGoldenInput0[sample], scores)) {
      BoardPrint("the model does not run\n");
      return 1;
    }
    const unsigned long instructions = static_cast<unsigned long>(BoardInstructions() - before);
    const int difference = LargestDifference(scores, model::kGoldenOutput0[sample]);
    if (difference > worst) worst = difference;
    PrintLine("golden %u: class %d, largest difference %d, %lu instructions\n", sample,
              Classify(model::kGoldenInput0[sample]), difference, instructions);
  }
  PrintLine("%s: largest difference %d\n", worst <= 1 ? "PASS" : "FAIL", worst);
  return worst <= 1 ? 0 : 1;
}
