// How a transformed convolution reads the filters, forward and for the input gradient.
#pragma once

#include "cpu/simd.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Of output channel k and input channel c of a group: weight + g * group + k * lane + input(c).
template <class T>
struct Filters {
  const T* weight;
  int64_t group, lane, channel;  // steps
  bool turned;                   // by 180 degrees: the last tap first
  int64_t planes = 1;            // inputs that are planes of one channel's filter
  int64_t plane = 0;             // their step
  int64_t parts = 1;             // inputs that are parts of one filter

  LAMINA_INLINE const T* at(const ops::ConvShape& s, int64_t k, int64_t c) const {
    return output(s, k) + input(c);
  }
  LAMINA_INLINE const T* output(const ops::ConvShape& s, int64_t k) const {
    return weight + k / s.k_per_group() * group + k % s.k_per_group() * lane;
  }
  LAMINA_INLINE int64_t input(int64_t c) const {
    if (parts > 1) c /= parts;
    if (planes == 1) return c * channel;
    const int64_t at = c % planes;
    return c / planes * channel + (turned ? planes - 1 - at : at) * plane;
  }
};

template <class T>
LAMINA_INLINE Filters<T> forward_filters(const ops::ConvArgs<T>& args) {
  const int64_t taps = args.shape.kernel_size(), lane = args.shape.c_per_group() * taps;
  return {args.weight, args.shape.k_per_group() * lane, lane, taps, false};
}

// For the stride-1 convolution of grad_y (shared/conv_phase.h), where k and c swap.
template <class T>
LAMINA_INLINE Filters<T> backward_filters(const ops::ConvArgs<T>& args) {
  const int64_t taps = args.shape.kernel_size(), channel = args.shape.c_per_group() * taps;
  return {args.weight, args.shape.k_per_group() * channel, taps, channel, true};
}

LAMINA_CPU_NAMESPACE_END
