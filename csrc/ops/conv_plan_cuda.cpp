// The rules of the CUDA convolutions: what each algorithm can run, its workspace and its cost.
#include "ops/conv_plan.h"

namespace lamina::ops {
namespace {

// Costs count multiply-adds at the rate of the implicit GEMM's inner loop.
constexpr ConvRule kCudaRules[] = {
    {"none", nullptr, nullptr, nullptr},
};

}  // namespace

const ConvRule* cuda_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kCudaRules)
    if (algo == rule.algo) return &rule;
  return nullptr;
}

}  // namespace lamina::ops
