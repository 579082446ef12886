#include "ops/registry.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

#include "ops/bf16_unit.h"

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

#define LAMINA_DECLARE_cuda(...)
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

#define LAMINA_ENTRY(space, op, pass, algo, Args, index)                      \
  kernel.functions[static_cast<int>(DType::f32)][index] =                     \
      erase<float, Args<float>>(&lamina::space::op##_##pass##_##algo<float>); \
  kernel.functions[static_cast<int>(DType::f64)][index] =                     \
      erase<double, Args<double>>(&lamina::space::op##_##pass##_##algo<double>);
#define LAMINA_REF(op, pass, algo, Args)            \
  {                                                 \
    Kernel kernel{"ref", #op, #pass, #algo, #Args}; \
    LAMINA_ENTRY(ref, op, pass, algo, Args, 0)      \
    kernels.push_back(kernel);                      \
  }
#define LAMINA_CPU(op, pass, algo, Args)                   \
  {                                                        \
    Kernel kernel{"cpu", #op, #pass, #algo, #Args};        \
    LAMINA_BASELINE(LAMINA_ENTRY, op, pass, algo, Args, 0) \
    LAMINA_AVX2(LAMINA_ENTRY, op, pass, algo, Args, 1)     \
    LAMINA_AVX512(LAMINA_ENTRY, op, pass, algo, Args, 2)   \
    kernels.push_back(kernel);                             \
  }
#define LAMINA_NONE(...)

std::vector<Kernel> ref_kernels() {
  std::vector<Kernel> kernels;
#define LAMINA_KERNEL_ref LAMINA_REF
#define LAMINA_KERNEL_cpu LAMINA_NONE
#define LAMINA_KERNEL_cuda LAMINA_NONE
#define LAMINA_KERNEL(backend, ...) LAMINA_KERNEL_##backend(__VA_ARGS__)
#include "ops/kernels.def"
#undef LAMINA_KERNEL_ref
#undef LAMINA_KERNEL_cpu
  return kernels;
}

std::vector<Kernel> cpu_kernels() {
  std::vector<Kernel> kernels;
#define LAMINA_KERNEL_ref LAMINA_NONE
#define LAMINA_KERNEL_cpu LAMINA_CPU
#include "ops/kernels.def"
#undef LAMINA_KERNEL
  return kernels;
}

// Backends only ever join, and each is complete before the count says so: readers need no lock.
constexpr int kMaxBackends = 8;
Backend backend_table[kMaxBackends];
std::atomic<int> backend_count{0};

// ref and cpu join on first use.
int known_backends() {
  static const bool built_in = [] {
    static const std::vector<Kernel> ref = ref_kernels(), cpu = cpu_kernels();
    backend_table[0] = {"ref", ref.data(), ref.size()};
    backend_table[1] = {"cpu", cpu.data(), cpu.size()};
    backend_count.store(2, std::memory_order_release);
    return true;
  }();
  static_cast<void>(built_in);
  return backend_count.load(std::memory_order_acquire);
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
    static const std::set<std::string> best = {"", "avx512", "avx512-bf16", "amx", "amx-model"};
    if (name == "scalar" || name == "baseline") {
      cap = Isa::baseline;
    } else if (name == "avx2") {
      cap = Isa::avx2;
    } else if (best.count(name) == 0) {
      throw std::invalid_argument(
          "LAMINA_ISA must be baseline (or scalar), avx2, avx512, avx512-bf16, amx or amx-model, "
          "got '" +
          name + "'");
    }
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

const char* dtype_name(DType dtype) {
  static const char* const names[] = {"float32", "float64", "float16", "bfloat16"};
  return names[static_cast<int>(dtype)];
}

void register_backend(const Backend& backend) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (find_backend(backend.name)) return;
  const int count = known_backends();
  if (count == kMaxBackends) throw std::logic_error("internal: too many backends");
  backend_table[count] = backend;
  backend_count.store(count + 1, std::memory_order_release);
}

const Backend* find_backend(const char* name) {
  const int count = known_backends();
  for (int i = 0; i < count; ++i)
    if (std::strcmp(backend_table[i].name, name) == 0) return &backend_table[i];
  return nullptr;
}

std::vector<Kernel> registry() {
  std::vector<Kernel> kernels;
  const int count = known_backends();
  for (int i = 0; i < count; ++i) {
    const Backend& backend = backend_table[i];
    kernels.insert(kernels.end(), backend.kernels, backend.kernels + backend.kernel_count);
  }
  return kernels;
}

const std::string& current_backend() {
  if (const std::string* forced = call_backend()) return *forced;
  static const std::string fallback = default_backend();
  return thread_backend.empty() ? fallback : thread_backend;
}

void set_current_backend(const std::string& name) {
  thread_backend = name;
}

namespace {
// Put into words when somebody asks: a call cannot wait for strings.
struct NotedPlan {
  Plan own;
  std::shared_ptr<const Plan> kept;  // the plan, if not null
  const Kernel* kernel = nullptr;    // else what ran, if not null
  const char* precision = "";
};
thread_local NotedPlan noted;
}  // namespace

const char* isa_of(const Kernel& kernel) {
  return std::strstr(kernel.algo, "_bf16") ? bf16_unit_name() : isa_name(isa());
}

const Plan& last_plan() {
  if (noted.kept) return *noted.kept;
  if (const Kernel* const kernel = std::exchange(noted.kernel, nullptr)) {
    const bool on_cpu = std::strcmp(kernel->backend, "cpu") == 0;
    const char* const isa_text = on_cpu ? isa_of(*kernel) : "";
    noted.own = {kernel->op, kernel->pass, kernel->backend, kernel->algo, isa_text,
                 0,          {},           noted.precision};
  }
  return noted.own;
}
void note_plan(std::shared_ptr<const Plan> plan) {
  noted.kept = std::move(plan);
}

const Backend& current_backend_kernels(const char* op) {
  const std::string& name = current_backend();
  if (const Backend* backend = find_backend(name.c_str())) return *backend;
  throw std::invalid_argument(message(op, "no backend is called '", name, "' (LAMINA_BACKEND)"));
}

namespace {

// The kernel that a look-up from the same place found before, if it is the one asked for.
struct FoundKernel {
  const Backend* backend = nullptr;
  const Kernel* kernel = nullptr;
};
FoundKernel& found_before(const char* op, const char* pass) {
  constexpr size_t kPlaces = 64;
  thread_local FoundKernel places[kPlaces];
  const auto a = reinterpret_cast<uintptr_t>(op), b = reinterpret_cast<uintptr_t>(pass);
  return places[(a ^ (a >> 6) ^ (b * 5) ^ (b >> 5)) % kPlaces];
}

}  // namespace

const Kernel& find_kernel(const char* op, const char* pass, const char* algo) {
  const Backend& backend = current_backend_kernels(op);
  FoundKernel& found = found_before(op, pass);
  if (algo == nullptr && found.backend == &backend && std::strcmp(found.kernel->op, op) == 0 &&
      std::strcmp(found.kernel->pass, pass) == 0)
    return *found.kernel;
  std::string known;
  for (size_t i = 0; i < backend.kernel_count; ++i) {
    const Kernel& kernel = backend.kernels[i];
    if (std::strcmp(kernel.op, op) != 0 || std::strcmp(kernel.pass, pass) != 0) continue;
    if (algo == nullptr) found = {&backend, &kernel};
    if (algo == nullptr || std::strcmp(kernel.algo, algo) == 0) return kernel;
    known += known.empty() ? kernel.algo : std::string(", ") + kernel.algo;
  }
  if (algo == nullptr || known.empty())
    throw std::invalid_argument(
        message(op, "backend '", backend.name, "' has no kernel for pass '", pass, "'"));
  throw std::invalid_argument(message(op, "backend '", backend.name, "' has no algorithm '", algo,
                                      "' for pass '", pass, "'; use 'auto' or one of ", known));
}

const Kernel& plan_kernel(const char* op, const char* pass, const char* algo,
                          const char* precision) {
  const Kernel& kernel = find_kernel(op, pass, algo);
  noted.kept.reset();
  noted.kernel = &kernel;
  noted.precision = precision;
  return kernel;
}

}  // namespace lamina::ops
