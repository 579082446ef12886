// The registry made from kernels.def, the choice of instruction set, and the typed kernel call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/check.h"

namespace lamina::ops {

enum class Isa { baseline, avx2, avx512 };
inline constexpr int kIsas = 3;

Isa isa();  // the best one that is compiled in, the processor has, and LAMINA_ISA allows
const char* isa_name(Isa isa);
std::vector<std::string> compiled_isas();

using AnyFunction = void (*)();

struct Kernel {
  const char* backend;
  const char* op;
  const char* pass;
  const char* algo;
  const char* args;             // name of the Args template, checked on every call
  AnyFunction f32[kIsas] = {};  // ref fills entry 0 only
  AnyFunction f64[kIsas] = {};
};

const std::vector<Kernel>& registry();

// The backend of the calling thread: set by lamina.backend(...), else LAMINA_BACKEND, else "cpu".
const std::string& current_backend();
void set_current_backend(const std::string& name);  // empty: back to the default

struct Refusal {
  std::string algo, reason;
};

// What ran in the call before on this thread, and why the other algorithms did not.
struct Plan {
  std::string op, pass, backend, algo, isa;
  int64_t workspace_bytes = 0;
  std::vector<Refusal> refusals;
};
Plan& last_plan();

// The kernel of that name; algo null takes the first registered. ValueError lists what exists.
const Kernel& find_kernel(const char* op, const char* pass, const char* algo = nullptr);

template <class Args>
struct ArgsTraits;  // element type and name, specialised below by LAMINA_ARGS

template <class Args>
void call_kernel(const Kernel& kernel, const Args& args) {
  using Function = void (*)(const Args&);
  const int index = std::string(kernel.backend) == "cpu" ? static_cast<int>(isa()) : 0;
  const AnyFunction function = ArgsTraits<Args>::is_f32 ? kernel.f32[index] : kernel.f64[index];
  if (function == nullptr || std::string(kernel.args) != ArgsTraits<Args>::name())
    throw std::logic_error(message(kernel.op, "internal: kernel called with the wrong arguments"));
  reinterpret_cast<Function>(function)(args);
}

// Runs the current backend's kernel of (op, pass) and notes the plan.
template <class Args>
void run(const char* op, const char* pass, const Args& args, const char* algo = nullptr) {
  const Kernel& kernel = find_kernel(op, pass, algo);
  last_plan() = {op,
                 pass,
                 kernel.backend,
                 kernel.algo,
                 std::string(kernel.backend) == "cpu" ? isa_name(isa()) : "",
                 0,
                 {}};
  call_kernel(kernel, args);
}

}  // namespace lamina::ops

// One line per Args template, beside its use in a binding.
#define LAMINA_ARGS(Args)                                      \
  namespace lamina::ops {                                      \
  template <class T>                                           \
  struct ArgsTraits<Args<T>> {                                 \
    static constexpr bool is_f32 = sizeof(T) == sizeof(float); \
    static const char* name() { return #Args; }                \
  };                                                           \
  }
