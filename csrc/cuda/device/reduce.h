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

// Every thread gets the combination of `warps` values, each held by all threads of its warp. All
// threads of the block must call it; it may be called again at once.
template <class Combine, class A>
__device__ __forceinline__ A combine_warps(A value, int warps, A* partial, Combine combine) {
  __syncthreads();  // the previous call's readers have finished
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = partial[0];
  for (int warp = 1; warp < warps; ++warp) value = combine(value, partial[warp]);
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
    value = combine_warps(value, kWarps, partial, combine);
  }
  return value;
}

// Sums N values, a power of two, over the lanes of a full warp in N + 4 shuffles or fewer: each
// step halves the values that a lane still holds. value[i] of a lane ends as the total of value
// lane * N / 32 + i; i is 0 for N up to 32, and then 32 / N lanes hold the same total.
template <int N, int LANES = 16, class A>
__device__ __forceinline__ void warp_sum_scatter(A* value) {
  constexpr int kHalf = N / 2;
  if constexpr (LANES > 0 && N > 1) {
    const bool upper = threadIdx.x & LANES;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const A kept = upper ? value[i + kHalf] : value[i];
      const A given = upper ? value[i] : value[i + kHalf];
      value[i] = kept + __shfl_xor_sync(0xffffffffu, given, LANES);
    }
    warp_sum_scatter<kHalf, LANES / 2>(value);
  } else if constexpr (LANES > 0) {
    value[0] += __shfl_xor_sync(0xffffffffu, value[0], LANES);
    warp_sum_scatter<1, LANES / 2>(value);
  }
}

}  // namespace lamina::cuda
