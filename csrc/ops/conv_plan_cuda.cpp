// The rules of the CUDA convolutions: what each algorithm can run, its workspace and its cost.
#include "ops/conv_plan.h"
#include "shared/conv_split.h"

namespace lamina::ops {
namespace {

// Costs count multiply-adds at the rate of the implicit GEMM's inner loop.
constexpr double kMacsPerElement = 28;  // of a float32 that moves between the GPU and its memory

std::string never(ConvPass, const ConvShape&) {
  return {};
}
double moved(const ConvShape& s) {
  return kMacsPerElement * static_cast<double>(s.x_elems() + s.y_elems());
}

// ---- direct

int64_t direct_elements(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return conv_wgrad_split(s).workspace_elements(s.weight_elems());
  if (pass == ConvPass::bgrad) return conv_bgrad_split(s).workspace_elements(s.k);
  return 0;
}
// Blocks of 16 output channels, of 4 at half the speed; the weight gradient loads more than it
// adds.
double direct_cost(ConvPass pass, const ConvShape& s) {
  const int64_t outputs = pass == ConvPass::dgrad ? s.c_per_group() : s.k_per_group();
  const int64_t block = outputs > 4 ? 16 : 4;
  const double filled =
      static_cast<double>((outputs + block - 1) / block * block) / static_cast<double>(outputs);
  const double slower = (outputs > 4 ? 1.3 : 2.6) * (pass == ConvPass::wgrad ? 1.6 : 1);
  const double macs = slower * filled * static_cast<double>(s.macs());
  return macs > moved(s) ? macs : moved(s);
}

constexpr ConvRule kCudaRules[] = {
    {"direct", never, direct_elements, direct_cost},
};

}  // namespace

const ConvRule* cuda_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kCudaRules)
    if (algo == rule.algo) return &rule;
  return nullptr;
}

}  // namespace lamina::ops
