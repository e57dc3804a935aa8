// A classifier for an application: codes in, the class with the highest score out. model.h and model.cc come from
// tfptq-to-c.

#include "classify.h"

#include <algorithm>

#include "model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

// CMSIS-NN kernels ask for buffers beyond what reference kernels take.
constexpr unsigned int kSpareBytes = 16 * 1024;
alignas(16) uint8_t arena[model::kArenaBytes + kSpareBytes];

tflite::MicroInterpreter* Allocated() {
  static model::Resolver resolver;
  static bool ready = model::AddOperators(resolver) == kTfLiteOk;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(model::kModel), resolver, arena, sizeof(arena));
  static bool allocated = ready && interpreter.AllocateTensors() == kTfLiteOk;
  return allocated ? &interpreter : nullptr;
}

}  // namespace

bool Run(const int8_t* codes, int8_t* scores) {
  tflite::MicroInterpreter* interpreter = Allocated();
  if (interpreter == nullptr) return false;
  std::copy_n(codes, model::kInputSizes[0], interpreter->input(0)->data.int8);
  if (interpreter->Invoke() != kTfLiteOk) return false;
  std::copy_n(interpreter->output(0)->data.int8, model::kOutputSizes[0], scores);
  return true;
}

int Classify(const int8_t* codes) {
  int8_t scores[model::kOutputSizes[0]];
  if (!Run(codes, scores)) return -1;
  return static_cast<int>(std::max_element(scores, scores + model::kOutputSizes[0]) - scores);
}

unsigned int ArenaBytes() {
  tflite::MicroInterpreter* interpreter = Allocated();
  return interpreter == nullptr ? 0 : static_cast<unsigned int>(interpreter->arena_used_bytes());
}
