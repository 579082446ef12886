#include "simt/fiber.h"

#include <cstdint>

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)

extern "C" void simt_fiber_entry();

// The return-address predictor is wrong after every switch, so `jmp` serves as well as `ret`.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch,@function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size simt_switch,.-simt_switch
.p2align 4
.globl simt_fiber_entry
.hidden simt_fiber_entry
.type simt_fiber_entry,@function
simt_fiber_entry:
    .cfi_startproc
    .cfi_undefined rip
    movq %r12, %rdi
    call simt_fiber_main
    ud2
    .cfi_endproc
.size simt_fiber_entry,.-simt_fiber_entry
)");

namespace simt {

void* prepare_stack(char*, char* top, void* argument) {
  // What simt_switch pops: six registers and the address to continue at. Two empty words keep the
  // stack aligned for the call in simt_fiber_entry and end a debugger's walk.
  void** stack = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15}) - 9;
  for (int i = 0; i < 9; ++i) stack[i] = nullptr;
  stack[3] = argument;  // r12
  stack[6] = reinterpret_cast<void*>(&simt_fiber_entry);
  return stack;
}

}  // namespace simt

#elif defined(__aarch64__) && !defined(SIMT_UCONTEXT)

extern "C" void simt_fiber_entry();

// x19 to x30 and d8 to d15 are what AAPCS64 asks a function to preserve.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch,%function
simt_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8,  d9,  [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8,  d9,  [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    br x30
.size simt_switch,.-simt_switch
.globl simt_fiber_entry
.hidden simt_fiber_entry
.type simt_fiber_entry,%function
simt_fiber_entry:
    mov x0, x19
    bl simt_fiber_main
    brk #1
.size simt_fiber_entry,.-simt_fiber_entry
)");

namespace simt {

void* prepare_stack(char*, char* top, void* argument) {
  constexpr int kWords = 20;
  auto* stack = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  stack -= kWords;
  for (int i = 0; i < kWords; ++i) stack[i] = 0;
  stack[0] = reinterpret_cast<uint64_t>(argument);            // x19
  stack[11] = reinterpret_cast<uint64_t>(&simt_fiber_entry);  // x30
  return stack;
}

}  // namespace simt

#else  // any POSIX system, or -DSIMT_UCONTEXT

#include <ucontext.h>

// `saved` and `next` are the ucontext_t at the bottom of a stack. The first switch away from the
// OS thread's own stack has none yet and makes one.
namespace {

void start(unsigned high, unsigned low) {
  simt_fiber_main(reinterpret_cast<void*>(static_cast<uintptr_t>(high) << 32 | low));
}

}  // namespace

extern "C" void simt_switch(void** saved, void* next) {
  if (*saved == nullptr) *saved = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(*saved), static_cast<ucontext_t*>(next));
}

namespace simt {

void* prepare_stack(char* bottom, char* top, void* argument) {
  auto* context = reinterpret_cast<ucontext_t*>(bottom);
  getcontext(context);
  context->uc_stack.ss_sp = bottom + (sizeof(ucontext_t) + 63) / 64 * 64;
  context->uc_stack.ss_size =
      static_cast<size_t>(top - static_cast<char*>(context->uc_stack.ss_sp));
  context->uc_link = nullptr;
  const auto value = reinterpret_cast<uintptr_t>(argument);
  makecontext(context, reinterpret_cast<void (*)()>(&start), 2,
              static_cast<unsigned>(static_cast<uint64_t>(value) >> 32),
              static_cast<unsigned>(value));
  return context;
}

}  // namespace simt

#endif
