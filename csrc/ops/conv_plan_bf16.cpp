// The implicit GEMM of the CPU in bfloat16 (cpu/conv_split.cpp): when it can run, its workspace and
// its cost.
#include <algorithm>
#include <cmath>

#include "ops/bf16_unit.h"
#include "ops/conv_plan.h"
#include "shared/conv_parts.h"
#include "shared/implicit_gemm.h"

namespace lamina::ops {
namespace {

// Costs are in the multiply-adds of conv_plan_cpu.cpp; those of vectors are fitted to medians of
// one thread of Zen 5.
constexpr double kMacsPerCall = 25e3, kMacsPerResult = 33;

double blocks(int64_t count, int64_t size) {
  return std::ceil(static_cast<double>(count) / static_cast<double>(size));
}
double whole(int64_t count, int64_t unit) {
  return blocks(count, unit) * static_cast<double>(unit);
}

// The largest part.
template <int PIECES>
int64_t elements(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return SplitGradient(s).workspace_elements(s);
  int64_t most = 0;
  for_each_part(pass, s, [&](const ConvPart& part) {
    most = std::max(most, ImplicitGemm(part.shape).split_elements(part.shape, PIECES));
  });
  return most;
}

// Of all filters, where splitting them counts beside the products of few positions. Parts have each
// their own.
template <int PIECES>
PackedForm kept_pieces(ConvPass pass, const ConvShape& shape) {
  constexpr int64_t kMostPositions = 2048;
  const ConvShape s = forward_shape(pass, shape);
  if (in_parts(pass, shape) || s.n * s.out_size() > kMostPositions) return {};
  return {s.groups * split_elements(s.k_per_group(), s.c_per_group() * s.kernel_size(), PIECES)};
}

// Blocks of 32 filters; what is packed is also split. wgrad splits its gradients for every block of
// the unrolled input, the other passes their filters once.
double tiles_cost(int pieces, ConvPass pass, const ConvShape& s) {
  const bool wgrad = pass == ConvPass::wgrad;
  const int64_t filters = pass == ConvPass::dgrad ? s.c_per_group() : s.k_per_group();
  const int64_t taps = s.c_per_group() * s.kernel_size();
  const double macs = static_cast<double>(s.macs());
  const double columns = macs / static_cast<double>(filters) * blocks(filters, wgrad ? 256 : 512);
  const double rows = wgrad ? macs / static_cast<double>(taps) * blocks(taps, 384)
                            : static_cast<double>(s.weight_elems());
  return 1.1 * split_product_macs(pieces) * macs / static_cast<double>(filters) *
             whole(filters, 32) +
         ((wgrad ? 30 : 20) + split_element_macs(pieces)) * (columns + rows) + kMacsPerCall;
}

// Blocks of 8 rows by 32 columns. Lines that lie as they are needed are split in place; others are
// unrolled first, and filters of several taps gathered, for every part.
double vectors_cost(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerLine = 25;
  const double macs = split_product_macs(1), groups = static_cast<double>(s.groups);
  const int64_t taps = s.kernel_size(), unrolled = s.c_per_group() * taps;
  if (pass == ConvPass::wgrad) {
    const double rows = static_cast<double>(s.k_per_group()) * blocks(unrolled, 384);
    const double columns = static_cast<double>(unrolled) * blocks(s.k_per_group(), 256);
    const bool in_place = taps == 1 && s.stride[2] == 1;
    const double per_line = in_place          ? 14
                            : s.stride[2] > 2 ? 3 * kMacsPerLine
                            : s.stride[2] > 1 ? 1.3 * kMacsPerLine
                                              : kMacsPerLine;
    return groups * static_cast<double>(s.n * s.out_size()) *
               (macs * whole(s.k_per_group(), 8) * whole(unrolled, 32) +
                per_line * (rows + columns)) +
           kMacsPerResult * static_cast<double>(s.weight_elems()) + kMacsPerCall;
  }
  const bool forward = pass == ConvPass::fprop, flat = taps == 1 && conv_phases(s) == 1;
  const int64_t filters = forward ? s.k_per_group() : s.c_per_group();
  const int64_t inputs = forward ? s.c_per_group() : s.k_per_group();
  const double per_line = flat ? 8 : forward && s.stride[2] > 1 ? 40 : kMacsPerLine;
  // A phase of a gradient gathers its own taps, a region of an output plane most of them.
  const bool gathered = taps > 1 && (!forward || in_parts(pass, s));
  const double per_weight = !gathered ? 20 : conv_phases(s) > 1 && !forward ? 30 : 60;
  const int64_t results = forward ? s.y_elems() : s.x_elems();
  double cost = kMacsPerCall + kMacsPerResult * static_cast<double>(results);
  for_each_part(pass, s, [&](const ConvPart& part) {
    const int64_t positions = part.shape.n * part.shape.out_size();
    const double lines = static_cast<double>(positions) * blocks(filters, 512);
    cost += groups * static_cast<double>(inputs * part.shape.kernel_size()) *
                (macs * whole(positions, 32) * whole(filters, 8) + per_line * lines) +
            (part.shape.kernel_size() > 0 ? per_weight : 0) * static_cast<double>(s.weight_elems());
  });
  return cost;
}

template <int PIECES>
double cost(ConvPass pass, const ConvShape& s) {
  return bf16_unit() == Bf16Unit::vectors ? vectors_cost(pass, s) : tiles_cost(PIECES, pass, s);
}

template <int PIECES>
std::string needs_unit(ConvPass, const ConvShape&) {
  if (PIECES <= most_pieces()) return {};
  return std::string("needs ") + (PIECES == 1 ? "AVX512-BF16 or " : "") +
         "the tile unit of AMX, which this processor has not, or LAMINA_ISA leaves alone";
}

template <int PIECES>
constexpr ConvRule rule(const char* algo, Float32Precision enough, const char* imprecise) {
  ConvRule rule{algo, needs_unit<PIECES>, elements<PIECES>, cost<PIECES>};
  rule.packed = kept_pieces<PIECES>;
  rule.imprecise = imprecise, rule.enough = enough, rule.float32_only = true;
  return rule;
}

constexpr ConvRule kRules[] = {
    rule<3>("implicit_gemm_bf16x6", Float32Precision::highest, nullptr),
    rule<2>("implicit_gemm_bf16x3", Float32Precision::high,
            "rounds operands to 16 bits: ask for it by name"),
    rule<1>("implicit_gemm_bf16", Float32Precision::medium,
            "rounds operands to 8 bits: needs set_float32_precision('medium')"),
};

}  // namespace

const ConvRule* bf16_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kRules)
    if (algo == rule.algo) return &rule;
  return nullptr;
}

}  // namespace lamina::ops
