#include "ops/registry.h"

#include <cstdlib>
#include <cstring>

// Declarations first: namespaces come from the backend's name, arguments stay incomplete types.
#define LAMINA_DECLARE_IN(space, op, pass, algo, Args) \
  namespace lamina::ops {                              \
  template <class T>                                   \
  struct Args;                                         \
  }                                                    \
  namespace lamina::space {                            \
  template <class T>                                   \
  void op##_##pass##_##algo(const ops::Args<T>&);      \
  }

#ifdef LAMINA_HAVE_BASELINE
#define LAMINA_BASELINE(macro, ...) macro(cpu::baseline, __VA_ARGS__)
#else
#define LAMINA_BASELINE(macro, ...)
#endif
#ifdef LAMINA_HAVE_AVX2
#define LAMINA_AVX2(macro, ...) macro(cpu::avx2, __VA_ARGS__)
#else
#define LAMINA_AVX2(macro, ...)
#endif
#ifdef LAMINA_HAVE_AVX512
#define LAMINA_AVX512(macro, ...) macro(cpu::avx512, __VA_ARGS__)
#else
#define LAMINA_AVX512(macro, ...)
#endif

#define LAMINA_DECLARE_ref(...) LAMINA_DECLARE_IN(ref, __VA_ARGS__)
#define LAMINA_DECLARE_cpu(...)                   \
  LAMINA_BASELINE(LAMINA_DECLARE_IN, __VA_ARGS__) \
  LAMINA_AVX2(LAMINA_DECLARE_IN, __VA_ARGS__)     \
  LAMINA_AVX512(LAMINA_DECLARE_IN, __VA_ARGS__)

#define LAMINA_KERNEL(backend, ...) LAMINA_DECLARE_##backend(__VA_ARGS__)
#include "ops/kernels.def"
#undef LAMINA_KERNEL

namespace lamina::ops {
namespace {

template <class T, class Args>
AnyFunction erase(void (*function)(const Args&)) {
  return reinterpret_cast<AnyFunction>(function);
}

#define LAMINA_ENTRY(space, op, pass, algo, Args, index)                                      \
  kernel.f32[index] = erase<float, Args<float>>(&lamina::space::op##_##pass##_##algo<float>); \
  kernel.f64[index] = erase<double, Args<double>>(&lamina::space::op##_##pass##_##algo<double>);

std::vector<Kernel> build_registry() {
  std::vector<Kernel> kernels;
#define LAMINA_FILL_ref(...) LAMINA_ENTRY(ref, __VA_ARGS__, 0)
#define LAMINA_FILL_cpu(...)                    \
  LAMINA_BASELINE(LAMINA_ENTRY, __VA_ARGS__, 0) \
  LAMINA_AVX2(LAMINA_ENTRY, __VA_ARGS__, 1)     \
  LAMINA_AVX512(LAMINA_ENTRY, __VA_ARGS__, 2)
#define LAMINA_KERNEL(backend, op, pass, algo, Args)                       \
  {                                                                        \
    Kernel kernel{#backend, #op, #pass, #algo, #Args, {}, {}};             \
    LAMINA_FILL_##backend(op, pass, algo, Args) kernels.push_back(kernel); \
  }
#include "ops/kernels.def"
#undef LAMINA_KERNEL
  return kernels;
}

bool processor_has(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::baseline:
      return true;
  }
#endif
  return isa == Isa::baseline;
}

bool compiled(Isa isa) {
  switch (isa) {
#ifdef LAMINA_HAVE_BASELINE
    case Isa::baseline:
      return true;
#endif
#ifdef LAMINA_HAVE_AVX2
    case Isa::avx2:
      return true;
#endif
#ifdef LAMINA_HAVE_AVX512
    case Isa::avx512:
      return true;
#endif
    default:
      return false;
  }
}

Isa detect_isa() {
  Isa cap = Isa::avx512;
  if (const char* text = std::getenv("LAMINA_ISA")) {
    const std::string name = text;
    if (name == "scalar" || name == "baseline") cap = Isa::baseline;
    if (name == "avx2") cap = Isa::avx2;
  }
  for (Isa isa : {Isa::avx512, Isa::avx2, Isa::baseline})
    if (isa <= cap && compiled(isa) && processor_has(isa)) return isa;
  throw std::runtime_error("lamina: no kernels for this processor (compiled for a newer one?)");
}

std::string default_backend() {
  const char* text = std::getenv("LAMINA_BACKEND");
  return text && *text ? text : "cpu";
}

thread_local std::string thread_backend;

}  // namespace

Isa isa() {
  static const Isa chosen = detect_isa();
  return chosen;
}

const char* isa_name(Isa isa) {
  static const char* const names[] = {"baseline", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (compiled(isa)) names.push_back(isa_name(isa));
  return names;
}

const std::vector<Kernel>& registry() {
  static const std::vector<Kernel> kernels = build_registry();
  return kernels;
}

const std::string& current_backend() {
  static const std::string fallback = default_backend();
  return thread_backend.empty() ? fallback : thread_backend;
}

void set_current_backend(const std::string& name) {
  thread_backend = name;
}

Plan& last_plan() {
  thread_local Plan plan;
  return plan;
}

const Kernel& find_kernel(const char* op, const char* pass, const char* algo) {
  const std::string& backend = current_backend();
  std::string known;
  for (const Kernel& kernel : registry()) {
    if (std::strcmp(kernel.op, op) != 0 || std::strcmp(kernel.pass, pass) != 0) continue;
    if (backend != kernel.backend) continue;
    if (algo == nullptr || std::strcmp(kernel.algo, algo) == 0) return kernel;
    known += known.empty() ? kernel.algo : std::string(", ") + kernel.algo;
  }
  if (algo == nullptr || known.empty())
    throw std::invalid_argument(
        message(op, "backend '", backend, "' has no kernel for pass '", pass, "'"));
  throw std::invalid_argument(message(op, "backend '", backend, "' has no algorithm '", algo,
                                      "' for pass '", pass, "'; use 'auto' or one of ", known));
}

}  // namespace lamina::ops
