#include "ops/conv_plan.h"

#include <cmath>
#include <cstring>

#include "shared/conv_phase.h"
#include "shared/fft_tiles.h"
#include "shared/winograd.h"

namespace lamina::ops {

const char* pass_name(ConvPass pass) {
  static const char* const names[] = {"fprop", "dgrad", "wgrad", "bgrad"};
  return names[static_cast<int>(pass)];
}

namespace {

std::string never(ConvPass, const ConvShape&) {
  return {};
}
int64_t no_workspace(ConvPass, const ConvShape&) {
  return 0;
}

std::string needs_depthwise(ConvPass, const ConvShape& s) {
  if (s.c_per_group() == 1) return {};
  return "needs one input channel a group, got " + std::to_string(s.c_per_group());
}

ConvShape forward_shape(ConvPass pass, const ConvShape& s) {
  return pass == ConvPass::dgrad ? conv_phase(s, 0).shape : s;
}

std::string needs_winograd(ConvPass, const ConvShape& s) {
  if (s.in[0] != 1 || s.out[0] != 1 || s.kernel[0] != 1) return "needs one or two spatial axes";
  if (s.kernel[1] != 3 || s.kernel[2] != 3)
    return "needs a 3x3 filter, got " + std::to_string(s.kernel[1]) + "x" +
           std::to_string(s.kernel[2]);
  if (s.stride[1] != 1 || s.stride[2] != 1) return "needs stride 1";
  if (s.dilation[1] != 1 || s.dilation[2] != 1) return "needs dilation 1";
  return {};
}

int64_t winograd_elements(ConvPass pass, const ConvShape& s) {
  return winograd::workspace_elements(forward_shape(pass, s));
}

// 16 products for 36, and every transformed element written and read.
double winograd_cost(ConvPass, const ConvShape& s) {
  constexpr double kMacsPerMove = 8;
  const winograd::Blocks blocks(s);
  const double tiles = static_cast<double>(blocks.all_rows(s) * blocks.tiles_w);
  const double weights = static_cast<double>(s.k * s.c_per_group());
  const double moved = 2 * 16 * (weights + tiles * static_cast<double>(s.c + s.k));
  return 16 * tiles * weights + kMacsPerMove * moved;
}

std::string needs_fft(ConvPass, const ConvShape& s) {
  if (s.in[0] != 1 || s.out[0] != 1 || s.kernel[0] != 1) return "needs one or two spatial axes";
  if (s.stride[1] != 1 || s.stride[2] != 1) return "needs stride 1";
  for (int axis = 1; axis < 3; ++axis)
    if (FftTiles::span(s, axis) > kLargestFft * 3 / 4)
      return "needs filters that span at most " + std::to_string(kLargestFft * 3 / 4) +
             " positions, got " + std::to_string(FftTiles::span(s, axis));
  return {};
}

int64_t fft_elements(ConvPass pass, const ConvShape& s) {
  const ConvShape shape = forward_shape(pass, s);
  return FftTiles(shape).workspace_elements(shape);
}

// Four real products a complex one; transforms of about 5 log2(side^2) operations an element that,
// like moves, cost a multiple of a product's.
double fft_cost(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerMove = 8, kMacsPerTransform = 60;
  const ConvShape shape = forward_shape(pass, s);
  const FftTiles tiles(shape);
  const double count = static_cast<double>(tiles.all(shape));
  const double frequencies = static_cast<double>(tiles.frequencies());
  const double weights = static_cast<double>(shape.k * shape.c_per_group());
  const double transformed = frequencies * (weights + count * static_cast<double>(s.c + s.k));
  return 4 * frequencies * count * weights +
         (4 * kMacsPerMove + 2 * kMacsPerTransform) * transformed;
}

// One col matrix of one image and group.
int64_t im2col_elements(ConvPass, const ConvShape& s) {
  return s.c_per_group() * s.kernel_size() * s.out_size();
}

double direct_cost(ConvPass, const ConvShape& s) {
  return static_cast<double>(s.macs());
}

// The col matrix is written once and read once; a float moves in the time of about 8 multiply-adds
// of a matrix product at its peak.
double im2col_cost(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerMove = 8;
  const double moved = 2.0 * static_cast<double>(s.n * s.groups * im2col_elements(pass, s));
  return static_cast<double>(s.macs()) + kMacsPerMove * moved;
}

// Packs each panel of the unrolled input once per block of output channels.
double implicit_gemm_cost(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerMove = 8, kBlockChannels = 96;
  const double blocks = std::ceil(static_cast<double>(s.k_per_group()) / kBlockChannels);
  const double moved = static_cast<double>(s.n * s.groups * im2col_elements(pass, s));
  return static_cast<double>(s.macs()) + kMacsPerMove * moved * blocks;
}

struct ConvRule {
  const char* algo;
  std::string (*refusal)(ConvPass, const ConvShape&);
  int64_t (*workspace_elements)(ConvPass, const ConvShape&);
  double (*cost)(ConvPass, const ConvShape&);
};

constexpr ConvRule kRules[] = {
    {"direct", never, no_workspace, direct_cost},
    {"depthwise", needs_depthwise, no_workspace, direct_cost},
    {"im2col", never, im2col_elements, im2col_cost},
    {"winograd", needs_winograd, winograd_elements, winograd_cost},
    {"fft", needs_fft, fft_elements, fft_cost},
    {"implicit_gemm", never, no_workspace, implicit_gemm_cost},
};

const ConvRule& rule_of(const std::string& algo) {
  for (const ConvRule& rule : kRules)
    if (algo == rule.algo) return rule;
  throw std::logic_error("internal: no rule for the convolution algorithm " + algo);
}

}  // namespace

std::string conv_refusal(const std::string& algo, ConvPass pass, const ConvShape& shape) {
  return rule_of(algo).refusal(pass, shape);
}

int64_t conv_workspace_bytes(const std::string& algo, ConvPass pass, const ConvShape& shape,
                             int64_t element_bytes) {
  return rule_of(algo).workspace_elements(pass, shape) * element_bytes;
}

double conv_cost(const std::string& algo, ConvPass pass, const ConvShape& shape) {
  return rule_of(algo).cost(pass, shape);
}

const Kernel& choose_conv(const char* op, ConvPass pass, const ConvShape& shape,
                          const std::string& algo, int64_t workspace_limit, int64_t element_bytes) {
  const bool automatic = algo == "auto";
  if (!automatic) find_kernel("conv", pass_name(pass), algo.c_str());  // an unknown name throws
  const Kernel* best = nullptr;
  double best_cost = 0;
  Plan plan{op, pass_name(pass), current_backend(), "", "", 0, {}};
  for (const Kernel& kernel : registry()) {
    if (std::strcmp(kernel.op, "conv") != 0 || plan.pass != kernel.pass) continue;
    if (plan.backend != kernel.backend) continue;
    if (!automatic && algo != kernel.algo) {
      plan.refusals.push_back({kernel.algo, "algo='" + algo + "' was asked for"});
      continue;
    }
    std::string reason = conv_refusal(kernel.algo, pass, shape);
    const int64_t bytes =
        reason.empty() ? conv_workspace_bytes(kernel.algo, pass, shape, element_bytes) : 0;
    if (reason.empty() && workspace_limit >= 0 && bytes > workspace_limit)
      reason = "needs " + std::to_string(bytes) +
               " bytes of workspace, above workspace_limit=" + std::to_string(workspace_limit);
    if (!reason.empty()) {
      plan.refusals.push_back({kernel.algo, reason});
      continue;
    }
    const double cost = conv_cost(kernel.algo, pass, shape);
    if (best != nullptr && cost >= best_cost) {
      plan.refusals.push_back(
          {kernel.algo, "slower than " + std::string(best->algo) + " by the cost rule"});
      continue;
    }
    if (best != nullptr)
      plan.refusals.push_back(
          {best->algo, "slower than " + std::string(kernel.algo) + " by the cost rule"});
    best = &kernel;
    best_cost = cost;
    plan.workspace_bytes = bytes;
  }
  if (best == nullptr) {
    std::string reasons;
    for (const Refusal& refusal : plan.refusals)
      if (automatic || refusal.algo == algo) reasons += "; " + refusal.algo + ": " + refusal.reason;
    throw std::invalid_argument(message(op, "no algorithm can run pass '", plan.pass,
                                        "' with algo='", algo, "'", reasons, "; use algo='auto'"));
  }
  plan.algo = best->algo;
  if (plan.backend == "cpu") plan.isa = isa_name(isa());
  last_plan() = plan;
  return *best;
}

}  // namespace lamina::ops
