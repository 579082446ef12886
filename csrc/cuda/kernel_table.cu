// The table of the CUDA kernels, made from ops/kernels.def: what this build of them joins the
// registry with.
#include "cuda/device/numeric.h"
#include "cuda/kernel_table.h"

#define LAMINA_DECLARE(op, pass, algo, Args)      \
  namespace lamina::ops {                         \
  template <class T>                              \
  struct Args;                                    \
  }                                               \
  namespace lamina::cuda {                        \
  template <class T>                              \
  void op##_##pass##_##algo(const ops::Args<T>&); \
  }
#define LAMINA_NONE(...)
#define LAMINA_KERNEL_ref LAMINA_NONE
#define LAMINA_KERNEL_cpu LAMINA_NONE
#define LAMINA_KERNEL_cuda LAMINA_DECLARE
#define LAMINA_KERNEL(backend, ...) LAMINA_KERNEL_##backend(__VA_ARGS__)
#include "ops/kernels.def"
#undef LAMINA_KERNEL_cuda

namespace lamina::cuda {

template <class T, class Args>
static ops::AnyFunction erase(void (*function)(const Args&)) {
  return reinterpret_cast<ops::AnyFunction>(function);
}

std::vector<ops::Kernel> kernel_table(const char* backend) {
  std::vector<ops::Kernel> kernels;
#define LAMINA_TYPE(dtype, T, function, Args) \
  kernel.functions[static_cast<int>(ops::DType::dtype)][0] = erase<T, ops::Args<T>>(&function<T>);
#define LAMINA_ENTRY(op, pass, algo, Args)                  \
  {                                                         \
    ops::Kernel kernel{backend, #op, #pass, #algo, #Args};  \
    LAMINA_TYPE(f32, float, op##_##pass##_##algo, Args)     \
    LAMINA_TYPE(f64, double, op##_##pass##_##algo, Args)    \
    LAMINA_TYPE(f16, float16, op##_##pass##_##algo, Args)   \
    LAMINA_TYPE(bf16, bfloat16, op##_##pass##_##algo, Args) \
    kernels.push_back(kernel);                              \
  }
#define LAMINA_KERNEL_cuda LAMINA_ENTRY
#include "ops/kernels.def"
  return kernels;
}

}  // namespace lamina::cuda
