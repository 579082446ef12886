#include "ops/epilogue_call.h"

namespace lamina::ops {

bool applies_epilogue(const Kernel& kernel, Activation kind) {
  // Kernels of the CPU that store f(sum + bias + residual) themselves.
  struct Name {
    const char *op, *pass, *algo;
  };
  static constexpr Name kOnCpu[] = {
      {"gemm", "fprop", "packed"},        {"conv", "fprop", "im2col"},
      {"conv", "fprop", "winograd"},      {"conv", "dgrad", "winograd"},
      {"conv", "fprop", "winograd2x4"},   {"conv", "dgrad", "winograd2x4"},
      {"conv", "fprop", "winograd4x1"},   {"conv", "dgrad", "winograd4x1"},
      {"conv", "fprop", "winograd5x5"},   {"conv", "dgrad", "winograd5x5"},
      {"conv", "fprop", "implicit_gemm"}, {"conv", "dgrad", "implicit_gemm"},
      {"conv", "fprop", "winograd4"},     {"conv", "dgrad", "winograd4"},
      {"conv", "fprop", "depthwise"},     {"conv", "dgrad", "depthwise"},
      {"conv", "fprop", "direct"},        {"conv", "dgrad", "direct"},
  };
  if (std::strcmp(kernel.backend, "ref") == 0) return true;
  if (std::strcmp(kernel.backend, "cpu") != 0)
    return is_piecewise_linear(kind) || takes_a_gate(kind);
  for (const Name& name : kOnCpu)
    if (std::strcmp(kernel.op, name.op) == 0 && std::strcmp(kernel.pass, name.pass) == 0 &&
        std::strcmp(kernel.algo, name.algo) == 0)
      return true;
  return false;
}

}  // namespace lamina::ops
