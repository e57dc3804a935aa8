// QEMU's mps2-an386 (Cortex-M4): start, and semihosting for text and exit
// (https://github.com/ARM-software/abi-aa/blob/main/semihosting/semihosting.rst).

#include "board.h"

#include <string.h>

extern uint32_t _data_load[], _data_start[], _data_end[], _bss_start[], _bss_end[], _stack_top[];
extern int main(void);
extern void __libc_init_array(void);

enum { kWrite0 = 0x04, kExit = 0x18, kApplicationExit = 0x20026, kRunTimeError = 0x20023 };
// A timer that counts down at 25 MHz.
enum { kNanosecondsPerTick = 40 };
static volatile uint32_t* const timer_control = (uint32_t*)0x40000000;
static volatile uint32_t* const timer_value = (uint32_t*)0x40000004;
static volatile uint32_t* const timer_reload = (uint32_t*)0x40000008;

static int Semihosting(int operation, const void* argument) {
  register int result __asm__("r0") = operation;
  register const void* value __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(result) : "r"(value) : "memory");
  return result;
}

void BoardPrint(const char* text) { Semihosting(kWrite0, text); }

uint64_t BoardInstructions(void) {
  if (*timer_control == 0) {
    *timer_reload = *timer_value = UINT32_MAX;
    *timer_control = 1;
  }
  return (uint64_t)(UINT32_MAX - *timer_value) * kNanosecondsPerTick;
}

static void Exit(int failed) {
  Semihosting(kExit, (const void*)(failed ? kRunTimeError : kApplicationExit));
  for (;;) {
  }
}

void Reset(void) {
  *(volatile uint32_t*)0xE000ED88 |= 0xFu << 20;  // CPACR: switch the floating-point unit on
  __asm__ volatile("dsb\n isb");
  memcpy(_data_start, _data_load, (size_t)((char*)_data_end - (char*)_data_start));
  memset(_bss_start, 0, (size_t)((char*)_bss_end - (char*)_bss_start));
  __libc_init_array();
  Exit(main());
}

static void Fault(void) {
  BoardPrint("fault\n");
  Exit(1);
}

// Asked for by start-up code and by static objects; there is nothing for them to do.
void _init(void) {}
void* __dso_handle = 0;

__attribute__((section(".vectors"), used)) static const void* const vectors[16] = {
    _stack_top, (void*)Reset, (void*)Fault, (void*)Fault, (void*)Fault, (void*)Fault, (void*)Fault};
