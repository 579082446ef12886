// The workspace of the CPU's winograd4x1 (cpu/conv_winograd_rows.cpp).
#pragma once

#include "ops/conv.h"

namespace lamina::winograd {

inline constexpr int64_t kRowsLanes = 16;  // output channels side by side in the filters

// The transformed filters: 6 elements for 3 taps.
constexpr int64_t row_filter_elements(const ops::ConvShape& s) {
  const int64_t parts = (s.k_per_group() + kRowsLanes - 1) / kRowsLanes;
  return s.groups * 6 * parts * kRowsLanes * s.c_per_group() * s.kernel[2];
}

}  // namespace lamina::winograd
