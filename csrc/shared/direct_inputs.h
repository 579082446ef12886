// Which convolutions `direct` computes over vectors of input channels on a CPU
// (cpu/direct_inputs.h), and what that costs: kernel and planner agree.
#pragma once

#include "shared/conv_parts.h"

namespace lamina {

// Strides over short rows make the copies of the other ways dear; the filters' layout wants
// positions to share it.
constexpr bool prefers_inputs(const ops::ConvShape& s, int64_t lanes) {
  constexpr int64_t kShort = 8, kFewestPositions = 256, kMostInputs = int64_t{1} << 31;
  return s.k > 0 && s.in[0] > 1 && s.stride[2] > 1 && s.kernel[2] > 1 && s.out[2] < kShort &&
         s.c_per_group() >= 2 * lanes && s.n * s.out_size() >= kFewestPositions &&
         s.n * s.in_size() < kMostInputs;
}

// Multiply-adds of products that no padding takes part in, of folding lanes, and of the layout of
// x and of the filters.
constexpr double direct_inputs_cost(const ops::ConvShape& s, int64_t lanes) {
  constexpr double kMacsPerFold = 80, kMacsPerElement = 10;
  const double width = static_cast<double>((s.c_per_group() + lanes - 1) / lanes * lanes);
  const double inside = inside_share(s, 0) * inside_share(s, 1) * inside_share(s, 2);
  const double taps = static_cast<double>(s.k * s.kernel_size());
  const double run = s.dilation[2] == 1 ? static_cast<double>(s.kernel[2]) : 1;
  return inside * taps * static_cast<double>(s.n * s.out_size()) *
             (1.5 * width + kMacsPerFold / run) +
         kMacsPerElement * (static_cast<double>(s.x_elems()) + width * taps);
}

}  // namespace lamina
