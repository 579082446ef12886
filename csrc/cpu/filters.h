// How a transformed convolution reads the filters, forward and for the input gradient.
#pragma once

#include "cpu/simd.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Of output channel k and input channel c of a group: weight + group + k * lane + c * channel.
template <class T>
struct Filters {
  const T* weight;
  int64_t lane, channel;  // steps
  bool turned;            // by 180 degrees: the last tap first

  LAMINA_INLINE const T* at(const ops::ConvShape& s, int64_t k, int64_t c) const {
    const int64_t lanes = s.k_per_group();
    const int64_t group = lanes * s.c_per_group() * s.kernel_size();
    return weight + k / lanes * group + k % lanes * lane + c * channel;
  }
};

template <class T>
LAMINA_INLINE Filters<T> forward_filters(const ops::ConvArgs<T>& args) {
  const int64_t taps = args.shape.kernel_size();
  return {args.weight, args.shape.c_per_group() * taps, taps, false};
}

// For the stride-1 convolution of grad_y (shared/conv_phase.h), where k and c swap.
template <class T>
LAMINA_INLINE Filters<T> backward_filters(const ops::ConvArgs<T>& args) {
  const int64_t taps = args.shape.kernel_size();
  return {args.weight, taps, args.shape.c_per_group() * taps, true};
}

LAMINA_CPU_NAMESPACE_END
