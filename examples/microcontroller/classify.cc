// Classifies one sample with TFLite Micro. The operators are those of the network of examples/digits.py, quantized with
// input_type="int8" and output_type="int8".

#include <cstdint>
#include <cstring>

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern const unsigned char model_data[];

namespace {
constexpr int kArenaBytes = 32 * 1024;
alignas(16) uint8_t arena[kArenaBytes];
}  // namespace

// Returns the class with the highest score, or -1 when the model cannot run. `sample` holds codes of the input:
// round(value / input->params.scale) + input->params.zero_point, clipped to -128..127.
int Classify(const int8_t* sample) {
  static tflite::MicroMutableOpResolver<6> resolver;
  static bool ready = resolver.AddConv2D() == kTfLiteOk && resolver.AddDepthwiseConv2D() == kTfLiteOk &&
                      resolver.AddAdd() == kTfLiteOk && resolver.AddMean() == kTfLiteOk &&
                      resolver.AddFullyConnected() == kTfLiteOk && resolver.AddSoftmax() == kTfLiteOk;
  static tflite::MicroInterpreter interpreter(tflite::GetModel(model_data), resolver, arena, kArenaBytes);
  static bool allocated = ready && interpreter.AllocateTensors() == kTfLiteOk;
  if (!allocated) return -1;

  TfLiteTensor* input = interpreter.input(0);
  std::memcpy(input->data.int8, sample, input->bytes);
  if (interpreter.Invoke() != kTfLiteOk) return -1;

  const TfLiteTensor* output = interpreter.output(0);
  int best = 0;
  for (int i = 1; i < static_cast<int>(output->bytes); ++i) {
    if (output->data.int8[i] > output->data.int8[best]) best = i;
  }
  return best;
}
