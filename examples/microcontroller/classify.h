#ifndef CLASSIFY_H_
#define CLASSIFY_H_

#include <cstdint>

// Fills `scores` with the codes of the output; false when the model cannot run. `codes` are those of the input:
// round(value / model::kInputScales[0]) + model::kInputZeroPoints[0], clipped to -128..127.
bool Run(const int8_t* codes, int8_t* scores);

// The class with the highest score, or -1 when the model cannot run.
int Classify(const int8_t* codes);

// What the arena takes on this device; 0 when the model cannot run.
unsigned int ArenaBytes();

#endif  // CLASSIFY_H_
