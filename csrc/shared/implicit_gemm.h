// What the CPU's implicit GEMM packs for all tasks of a convolution: its filters or, where the
// output positions are few, its unrolled input.
#pragma once

#include "ops/conv.h"

namespace lamina {

struct ImplicitGemm {
  int64_t positions, depth;  // of the product: outputs of all images, inputs x taps of a group
  bool pack_input;

  constexpr explicit ImplicitGemm(const ops::ConvShape& s)
      : positions(s.n * s.out_size()),
        depth(s.c_per_group() * s.kernel_size()),
        pack_input(positions < kFew && positions < 2 * s.k_per_group()) {}

  // Whole vectors of positions, or whole panels of up to 8 filters.
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return s.groups * depth * (pack_input ? positions + 15 : s.k_per_group() + 7);
  }

  static constexpr int64_t kFew = 768;
};

// wgrad: the positions are cut into parts where too few weights would leave processors idle.
struct ImplicitGemmParts {
  int64_t parts, positions;  // of a part, the last one may be shorter

  constexpr explicit ImplicitGemmParts(const ops::ConvShape& s) : parts(1) {
    constexpr int64_t kTasks = 16, kBlockWeights = 256 * 96, kLeast = 1024;
    const int64_t all = s.n * s.out_size();
    const int64_t tasks = (s.weight_elems() + kBlockWeights - 1) / kBlockWeights;
    if (tasks > 0 && tasks < kTasks) parts = (kTasks + tasks - 1) / tasks;
    if (parts > all / kLeast) parts = all / kLeast > 0 ? all / kLeast : 1;
    positions = (all + parts - 1) / parts;
  }
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return parts > 1 ? parts * s.weight_elems() : 0;
  }
};

}  // namespace lamina
