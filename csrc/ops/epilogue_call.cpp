#include "ops/epilogue_call.h"

namespace lamina::ops {

bool applies_epilogue(const Kernel& kernel, Activation kind) {
  // Kernels of the CPU that store f(sum + bias + residual) themselves; "winograd" is winograd4 too.
  struct Name {
    const char *op, *algo;
  };
  static constexpr Name kOnCpu[] = {{"gemm", "packed"},
                                    {"conv", "winograd"},
                                    {"conv", "implicit_gemm"},
                                    {"conv", "depthwise"},
                                    {"conv", "direct"}};
  if (std::strcmp(kernel.op, "batch_norm") == 0)
    return std::strcmp(kernel.backend, "cpu") == 0 && is_piecewise_linear(kind);
  if (std::strcmp(kernel.backend, "ref") == 0) return true;
  if (std::strcmp(kernel.backend, "cpu") != 0)
    return is_piecewise_linear(kind) || takes_a_gate(kind);
  for (const Name& name : kOnCpu)
    if (std::strcmp(kernel.op, name.op) == 0 &&
        std::strncmp(kernel.algo, name.algo, std::strlen(name.algo)) == 0)
      return true;
  return std::strcmp(kernel.algo, "im2col") == 0 && std::strcmp(kernel.pass, "fprop") == 0;
}

}  // namespace lamina::ops
