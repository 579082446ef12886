// The input gradient of a strided convolution as stride-1 convolutions, one per phase of grad_x.
//
//   i = o * stride - pad + r * dilation: the positions i = phase + stride * j meet only the taps
//   r = first + step * t with step = stride / gcd(stride, dilation), and then
//   o = j + base - t * (dilation / gcd). Read backwards (t' = taps - 1 - t) this is a convolution
//   of grad_y with stride 1 and dilation / gcd. A phase without taps is zero (or the bias).
#pragma once

#include <cstdint>

#include "ops/conv.h"

namespace lamina {

struct ConvPhase {
  ops::ConvShape shape;       // x is grad_y, y the grad_x of this phase: c and k swap their roles
  int64_t first[3], step[3];  // tap t of shape.kernel is tap first - t * step of the filter
  int64_t offset[3];          // position j of the phase is offset + j * stride of grad_x

  constexpr int64_t tap(int axis, int64_t t) const { return first[axis] - t * step[axis]; }
};

constexpr int64_t greatest_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

constexpr int64_t conv_phases(const ops::ConvShape& s) {
  return s.stride[0] * s.stride[1] * s.stride[2];
}

[[gnu::always_inline]] constexpr ConvPhase conv_phase(const ops::ConvShape& s, int64_t index) {
  ConvPhase phase{};
  phase.shape = s;
  phase.shape.c = s.k, phase.shape.k = s.c;
  for (int axis = 2; axis >= 0; --axis) {
    const int64_t stride = s.stride[axis], dilation = s.dilation[axis];
    const int64_t offset = index % stride, divisor = greatest_divisor(stride, dilation);
    index /= stride;
    const int64_t step = stride / divisor, spread = dilation / divisor;
    int64_t first = 0;  // the phase's lowest tap
    while (first < step && (offset + s.pad[axis] - first * dilation) % stride != 0) ++first;
    const bool any = first < step && first < s.kernel[axis];
    const int64_t taps = any ? (s.kernel[axis] - 1 - first) / step + 1 : 0;
    const int64_t base = any ? (offset + s.pad[axis] - first * dilation) / stride : 0;
    phase.shape.in[axis] = s.out[axis];
    phase.shape.out[axis] = offset < s.in[axis] ? (s.in[axis] - offset - 1) / stride + 1 : 0;
    phase.shape.kernel[axis] = taps;
    phase.shape.stride[axis] = 1;
    phase.shape.dilation[axis] = spread;
    phase.shape.pad[axis] = (taps - 1) * spread - base;
    phase.first[axis] = first + (taps - 1) * step, phase.step[axis] = step;
    phase.offset[axis] = offset;
  }
  return phase;
}

// A row of a phase's filter in memory, `depth` values and zeros up to whole vectors.
constexpr int64_t phase_filter_pitch(int64_t depth) {
  return (depth + 7) / 8 * 8;
}
// The largest of the phases' filters.
constexpr int64_t phase_filter_elements(const ops::ConvShape& s) {
  int64_t taps = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t step = s.stride[axis] / greatest_divisor(s.stride[axis], s.dilation[axis]);
    taps *= (s.kernel[axis] + step - 1) / step;
  }
  return s.c * phase_filter_pitch(s.k_per_group() * taps);
}

}  // namespace lamina
