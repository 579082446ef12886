// Reductions over a warp and a block, in an order that depends on nothing but the block's size.
#pragma once

#include "cuda/device/numeric.h"

namespace lamina::cuda {

struct Sum {
  template <class A>
  __device__ __forceinline__ A operator()(A a, A b) const {
    return a + b;
  }
};
struct MaxOrNan {
  template <class A>
  __device__ __forceinline__ A operator()(A a, A b) const {
    return max_or_nan(a, b);
  }
};

// Every lane of a full warp gets the reduction of all 32 values.
template <class Combine, class A>
__device__ __forceinline__ A warp_reduce(A value, Combine combine) {
  for (int lane = 16; lane > 0; lane /= 2)
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, lane));
  return value;
}

// Every thread of a one-dimensional block of THREADS, a multiple of 32, gets the reduction of all
// values. All threads must call it; it may be called again at once.
template <int THREADS, class Combine, class A>
__device__ __forceinline__ A block_reduce(A value, Combine combine) {
  constexpr int kWarps = THREADS / 32;
  static_assert(THREADS % 32 == 0 && kWarps <= 32);
  value = warp_reduce(value, combine);
  if constexpr (kWarps > 1) {
    __shared__ A partial[kWarps];
    __syncthreads();  // the previous call's readers have finished
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int warp = 1; warp < kWarps; ++warp) value = combine(value, partial[warp]);
  }
  return value;
}

}  // namespace lamina::cuda
