// The registry made from kernels.def, the choice of backend and instruction set, and the typed
// kernel call.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/workspace.h"
#include "ops/call.h"
#include "shared/float16.h"

namespace lamina::ops {

enum class Isa { baseline, avx2, avx512 };
inline constexpr int kIsas = 3;

Isa isa();  // the best one that is compiled in, the processor has, and LAMINA_ISA allows
const char* isa_name(Isa isa);
std::vector<std::string> compiled_isas();

enum class DType { f32, f64, f16, bf16 };
inline constexpr int kDTypes = 4;
const char* dtype_name(DType dtype);

using AnyFunction = void (*)();

struct Kernel {
  const char* backend;
  const char* op;
  const char* pass;
  const char* algo;
  const char* args;  // name of the Args template, checked on every call
  // Null where the backend has no kernel of that type; one entry a dtype but for cpu.
  AnyFunction functions[kDTypes][kIsas] = {};
};

// A set of kernels and the memory they work in. ref and cpu are always there; the CUDA kernels join
// when their extension module is imported: lamina._cuda for GPUs, lamina._simt and
// lamina._simt_check on the CPU.
struct Backend {
  const char* name;
  const Kernel* kernels;
  size_t kernel_count;
  void* (*allocate)(size_t bytes) = nullptr;  // workspace; null: the host's
  void (*release)(void* data) = nullptr;
  void (*begin_call)(const CallMemory* memory, size_t count) = nullptr;
  void (*end_call)(const CallMemory* memory, size_t count) = nullptr;
  // GPUs only. The stream and device of this thread's coming calls; copies of host memory, which
  // `upload` makes and, after the call, `download` reads back; both wait for the stream.
  void (*select)(void* stream, int device) = nullptr;
  void* (*upload)(const CallMemory& memory) = nullptr;
  void (*download)(const CallMemory& memory, const void* copy) = nullptr;
};
void register_backend(const Backend& backend);  // what it points to must stay; once a name
const Backend* find_backend(const char* name);  // null if there is none
std::vector<Kernel> registry();                 // of all backends

// The backend of the calling thread: set by lamina.backend(...), else LAMINA_BACKEND, else "cpu".
const std::string& current_backend();
void set_current_backend(const std::string& name);  // empty: back to the default

const char* isa_of(const Kernel& kernel);  // that runs a kernel of the backend cpu

struct Refusal {
  std::string algo, reason;
};

// What ran in the call before on this thread, and why the other algorithms did not.
struct Plan {
  std::string op, pass, backend, algo, isa;
  int64_t workspace_bytes = 0;
  std::vector<Refusal> refusals;
  const char* precision = "highest";  // what the call was allowed (ops/precision.h)
  std::string_view chosen_by = {};    // ops/conv_plan.h; empty where there was no choice
};
const Plan& last_plan();
void note_plan(std::shared_ptr<const Plan> plan);  // for choices; plan_kernel notes its own

const Backend& current_backend_kernels(const char* op);  // ValueError for an unknown name

// The kernel of that name; algo null takes the first registered. ValueError lists what exists.
const Kernel& find_kernel(const char* op, const char* pass, const char* algo = nullptr);

template <class T>
inline constexpr DType kDTypeOf = sizeof(T) == sizeof(double) ? DType::f64 : DType::f32;
template <>
inline constexpr DType kDTypeOf<float16> = DType::f16;
template <>
inline constexpr DType kDTypeOf<bfloat16> = DType::bf16;

template <class Args>
struct ArgsTraits;  // element type and name, specialised below by LAMINA_ARGS

// Tells the backend which memory the call may touch, from its construction to its end. A call whose
// arrays are known, by its CallScope, to be small keeps to one thread.
class WatchedCall {
 public:
  WatchedCall();
  ~WatchedCall();
  WatchedCall(const WatchedCall&) = delete;
  WatchedCall& operator=(const WatchedCall&) = delete;

 private:
  bool small_ = false, was_alone_ = false;
};

// Temporary memory of a call, where the kernel's backend works.
class CallWorkspace {
 public:
  CallWorkspace(const Kernel& kernel, int64_t bytes)
      : backend_(find_backend(kernel.backend)),
        host_(backend_->allocate ? 0 : bytes),
        data_(backend_->allocate && bytes ? backend_->allocate(static_cast<size_t>(bytes))
                                          : host_.get()) {}
  ~CallWorkspace() {
    if (backend_->allocate && data_) backend_->release(data_);
  }
  CallWorkspace(const CallWorkspace&) = delete;
  CallWorkspace& operator=(const CallWorkspace&) = delete;

  void* get() const { return data_; }

 private:
  const Backend* backend_;
  Workspace host_;
  void* data_;
};

// The kernel's function alone, inside a WatchedCall.
template <class Args>
void call_function(const Kernel& kernel, const Args& args) {
  using Function = void (*)(const Args&);
  const int index = std::strcmp(kernel.backend, "cpu") == 0 ? static_cast<int>(isa()) : 0;
  constexpr DType kDType = ArgsTraits<Args>::dtype;
  const AnyFunction function = kernel.functions[static_cast<int>(kDType)][index];
  if (function == nullptr)
    throw TypeError(message(kernel.op, "backend '", kernel.backend, "' has no ", dtype_name(kDType),
                            " kernel; use float32 or float64"));
  if (std::strcmp(kernel.args, ArgsTraits<Args>::name()) != 0)
    throw std::logic_error(message(kernel.op, "internal: kernel called with the wrong arguments"));
  reinterpret_cast<Function>(function)(args);
}

template <class Args>
void call_kernel(const Kernel& kernel, const Args& args) {
  const WatchedCall call;
  call_function(kernel, args);
}

// The current backend's kernel of (op, pass), noted as the plan.
const Kernel& plan_kernel(const char* op, const char* pass, const char* algo = nullptr,
                          const char* precision = "highest");

template <class Args>
void run(const char* op, const char* pass, const Args& args, const char* algo = nullptr) {
  call_kernel(plan_kernel(op, pass, algo), args);
}

}  // namespace lamina::ops

// One line per Args template, beside its use in a binding.
#define LAMINA_ARGS(Args)                       \
  namespace lamina::ops {                       \
  template <class T>                            \
  struct ArgsTraits<Args<T>> {                  \
    static constexpr DType dtype = kDTypeOf<T>; \
    static const char* name() { return #Args; } \
  };                                            \
  }
