// What the test needs of the board; another board has its own.

#ifndef BOARD_H_
#define BOARD_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Shows a text.
void BoardPrint(const char* text);

// Instructions since the first call, to 40: with -icount shift=0, one takes a nanosecond of QEMU's time.
uint64_t BoardInstructions(void);

#ifdef __cplusplus
}
#endif

#endif  // BOARD_H_
