// A minimal stack switch between fibers on one OS thread.
//
// simt_switch(&saved, next) pushes the callee-saved registers, stores the stack pointer in `saved`
// and continues on the stack `next`. No signal mask and no floating-point control words are saved:
// the system call that saves them makes swapcontext twenty to forty times slower.
#pragma once

#include <cstddef>

namespace simt {

// The start of a fiber: its first switch calls simt_fiber_main(argument) on the stack that ends at
// `top`. Returns what simt_switch takes as `next`.
void* prepare_stack(char* bottom, char* top, void* argument);

}  // namespace simt

extern "C" {
void simt_switch(void** saved, void* next);
void simt_fiber_main(void* argument);  // the scheduler's; never returns
}
