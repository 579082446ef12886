// Planted bugs in control flow: barriers and collectives that not everyone reaches.
#include "harness.h"

using harness::Array;
using harness::launch;

static constexpr unsigned kFull = 0xffffffffu;

template <class Kernel>
static void run(Kernel kernel, unsigned threads) {
  Array<int> y(std::vector<int>(threads), "y", simt::Contents::in_out);
  launch(kernel, 1, threads, y.data());
}

template <bool BROKEN>
__global__ void divergent_barrier_kernel(int* y) {
  const unsigned t = threadIdx.x;
  if (BROKEN && t < 16) {
    y[t] = 1;
    __syncthreads();  // found: divergent_barrier
  } else {
    y[t] = 2;
    __syncthreads();  // found: divergent_barrier
  }
}
PLANTED(divergent_barrier) {
  run(divergent_barrier_kernel<BROKEN>, 64);
}

// The vote of some is a plain barrier of others.
template <bool BROKEN>
__global__ void mixed_votes_kernel(int* y) {
  const bool low = threadIdx.x < 32;
  // clang-format off
  y[threadIdx.x] = BROKEN && low ? __syncthreads_or(1) : __syncthreads_and(1);  // found: mixed_votes
  // clang-format on
}
PLANTED(mixed_votes) {
  run(mixed_votes_kernel<BROKEN>, 64);
}

template <bool BROKEN>
__global__ void early_exit_kernel(int* y) {
  __shared__ int s[64];
  const unsigned t = threadIdx.x;
  if (BROKEN && t >= 40) return;
  s[t] = 1;
  __syncthreads();  // found: early_exit
  y[t] = s[0];
}
PLANTED(early_exit) {
  run(early_exit_kernel<BROKEN>, 64);
}

// Warps pass the barrier in the loop different numbers of times.
template <bool BROKEN>
__global__ void uneven_loop_kernel(int* y) {
  const unsigned rounds = BROKEN ? threadIdx.x / 32 + 1 : 3;
  for (unsigned i = 0; i < rounds; ++i) __syncthreads();  // found: uneven_loop
  y[threadIdx.x] = 1;
}
PLANTED(uneven_loop) {
  run(uneven_loop_kernel<BROKEN>, 96);
}

// Half of each warp waits for the other half, which waits for the whole block.
template <bool BROKEN>
__global__ void deadlock_kernel(int* y) {
  if (!BROKEN || threadIdx.x & 16) __syncwarp();        // found: deadlock
  if (!BROKEN || !(threadIdx.x & 16)) __syncthreads();  // found: deadlock
  y[threadIdx.x] = 1;
}
PLANTED(deadlock) {
  run(deadlock_kernel<BROKEN>, 64);
}

template <bool BROKEN>
__global__ void divergent_shuffle_kernel(int* y) {
  const int t = static_cast<int>(threadIdx.x);
  int value = t;
  if (BROKEN && t % 2)
    value += __shfl_xor_sync(kFull, value, 1);  // found: divergent_shuffle
  else
    value -= __shfl_xor_sync(kFull, value, 1);  // found: divergent_shuffle
  y[t] = value;
}
PLANTED(divergent_shuffle) {
  run(divergent_shuffle_kernel<BROKEN>, 32);
}

// Lanes that meet must agree on who meets.
template <bool BROKEN>
__global__ void different_masks_kernel(int* y) {
  const unsigned t = threadIdx.x;
  const unsigned mask = BROKEN && t < 8 ? 0x000000ffu : kFull;
  const unsigned ballot = __ballot_sync(mask, t == 3);  // found: different_masks
  __syncwarp();                                         // found: different_masks
  y[t] = static_cast<int>(ballot);
}
PLANTED(different_masks) {
  run(different_masks_kernel<BROKEN>, 32);
}

template <bool BROKEN>
__global__ void mask_without_caller_kernel(int* y) {
  const unsigned t = threadIdx.x, mask = BROKEN ? 0x7fffffffu : kFull;
  y[t] = __any_sync(mask, t == 3);  // found: mask_without_caller
}
PLANTED(mask_without_caller) {
  run(mask_without_caller_kernel<BROKEN>, 32);
}

// The last warp of the block has eight lanes: its sums read lanes that do not exist.
template <bool BROKEN>
__global__ void inactive_lane_kernel(int* y) {
  const unsigned t = threadIdx.x;
  const bool whole = t < 32;
  const int width = BROKEN || whole ? 32 : 8;
  const unsigned mask = whole ? kFull : 0xffu;
  unsigned sum = t;
  for (unsigned distance = static_cast<unsigned>(width) / 2; distance; distance /= 2)
    sum += __shfl_down_sync(mask, sum, distance, width);  // found: inactive_lane
  y[t] = static_cast<int>(sum & 0xffffu);
}
PLANTED(inactive_lane) {
  run(inactive_lane_kernel<BROKEN>, 40);
}

template <bool BROKEN>
__global__ void partial_mma_kernel(int* y) {
  float d[4] = {0, 0, 0, 0};
  const uint32_t a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
  simt::mma_m16n8k16_bf16(d, a, b, d);  // found: partial_mma
  y[threadIdx.x] = static_cast<int>(d[0]);
}
PLANTED(partial_mma) {
  run(partial_mma_kernel<BROKEN>, BROKEN ? 48 : 64);
}
