// What the cost rules of the CPU's convolutions share. Costs count multiply-adds at the speed of
// the direct kernel; their factors are fitted to medians of `lamina bench conv` over all passes
// (AVX-512, two cores). Only their order matters.
#pragma once

#include "ops/conv_plan.h"

namespace lamina::ops {

// Of the algorithms that transform tiles: conv_plan_tiles.cpp.
const ConvRule* tiled_conv_rule(const std::string& algo);

inline double results(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return static_cast<double>(s.weight_elems());
  return static_cast<double>(pass == ConvPass::dgrad ? s.n * s.c * s.in_size()
                                                     : s.n * s.k * s.out_size());
}
// Floats of the kernels' vectors. With half of them (AVX2) products take twice as long, and what is
// copied weighs less beside them.
inline int64_t vector_lanes() {
  return int64_t{4} << static_cast<int>(isa());
}
inline double whole_vectors(int64_t count) {
  return static_cast<double>((count + vector_lanes() - 1) / vector_lanes() * vector_lanes());
}
inline double filters(const ConvShape& s) {
  return static_cast<double>(s.k * s.c_per_group());
}

// Results beyond L2 that other algorithms write in short pieces of many rows at a time.
inline double far_results(ConvPass pass, const ConvShape& s) {
  constexpr double kInL2 = 1 << 21, kMacsPerFarResult = 15;
  return results(pass, s) > kInL2 ? kMacsPerFarResult * results(pass, s) : 0;
}

constexpr ConvRule packing(ConvRule rule, PackedForm (*packed)(ConvPass, const ConvShape&)) {
  rule.packed = packed;
  return rule;
}

}  // namespace lamina::ops
