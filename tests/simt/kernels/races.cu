// Planted races. Most of them give the right numbers on a GPU on most days.
#include "harness.h"

using harness::Array;
using harness::launch;

static constexpr unsigned kFull = 0xffffffffu;

// Runs kernel(x, y) with one output element a thread.
template <class Kernel>
static void run(Kernel kernel, unsigned blocks, unsigned threads, size_t outputs) {
  Array<int> x(harness::counting<int>(1024), "x"), y(outputs, "y");
  launch(kernel, blocks, threads, x.data(), y.data());
}

// ---- shared memory, inside a warp

template <bool BROKEN>
__global__ void missing_syncwarp_kernel(const int* x, int* y) {
  __shared__ int s[32];
  const unsigned t = threadIdx.x;
  s[t] = x[t];  // found: missing_syncwarp
  if (!BROKEN) __syncwarp();
  y[t] = s[t ^ 1];  // found: missing_syncwarp
}
PLANTED(missing_syncwarp) {
  run(missing_syncwarp_kernel<BROKEN>, 1, 32, 32);
}

// Shuffles exchange values; they order no accesses to memory.
template <bool BROKEN>
__global__ void shuffle_as_barrier_kernel(const int* x, int* y) {
  __shared__ int s[32];
  const unsigned t = threadIdx.x;
  s[t] = x[t];  // found: shuffle_as_barrier
  const int other = __shfl_xor_sync(kFull, x[t], 1);
  if (!BROKEN) __syncwarp();
  y[t] = other + s[t ^ 2];  // found: shuffle_as_barrier
}
PLANTED(shuffle_as_barrier) {
  run(shuffle_as_barrier_kernel<BROKEN>, 1, 32, 32);
}

template <bool BROKEN>
__global__ void overwritten_in_warp_kernel(const int* x, int* y) {
  __shared__ int s[32];
  const unsigned t = threadIdx.x;
  s[t] = x[t];
  __syncwarp();
  const int other = s[31 - t];  // found: overwritten_in_warp
  if (!BROKEN) __syncwarp();
  s[t] = other;  // found: overwritten_in_warp
  y[t] = s[t];
}
PLANTED(overwritten_in_warp) {
  run(overwritten_in_warp_kernel<BROKEN>, 1, 32, 32);
}

template <bool BROKEN>
__global__ void two_lanes_write_kernel(const int* x, int* y) {
  __shared__ int s[32];
  const unsigned t = threadIdx.x;
  s[BROKEN ? t / 2 : t] = x[t];  // found: two_lanes_write
  __syncwarp();
  y[t] = s[BROKEN ? t / 2 : t];
}
PLANTED(two_lanes_write) {
  run(two_lanes_write_kernel<BROKEN>, 1, 32, 32);
}

// A __syncwarp of some lanes orders those only.
template <bool BROKEN>
__global__ void narrow_syncwarp_kernel(const int* x, int* y) {
  __shared__ int s[32];
  const unsigned t = threadIdx.x;
  s[t] = x[t];  // found: narrow_syncwarp
  __syncwarp(!BROKEN ? kFull : t < 16 ? 0x0000ffffu : 0xffff0000u);
  y[t] = s[31 - t];  // found: narrow_syncwarp
}
PLANTED(narrow_syncwarp) {
  run(narrow_syncwarp_kernel<BROKEN>, 1, 32, 32);
}

// ---- shared memory, across warps

template <bool BROKEN>
__global__ void missing_syncthreads_kernel(const int* x, int* y) {
  __shared__ int s[128];
  const unsigned t = threadIdx.x;
  s[t] = x[t];  // found: missing_syncthreads
  if (!BROKEN) __syncthreads();
  y[t] = s[127 - t];  // found: missing_syncthreads
}
PLANTED(missing_syncthreads) {
  run(missing_syncthreads_kernel<BROKEN>, 1, 128, 128);
}

// The next step's load may overtake the slowest reader of this step.
template <bool BROKEN>
__global__ void overwritten_tile_kernel(const int* x, int* y) {
  __shared__ int s[64];
  const unsigned t = threadIdx.x;
  int sum = 0;
  for (unsigned step = 0; step < 4; ++step) {
    s[t] = x[64 * step + t];  // found: overwritten_tile
    __syncthreads();
    sum += s[63 - t];  // found: overwritten_tile
    if (!BROKEN) __syncthreads();
  }
  y[t] = sum;
}
PLANTED(overwritten_tile) {
  run(overwritten_tile_kernel<BROKEN>, 1, 64, 64);
}

template <bool BROKEN>
__global__ void two_warps_write_kernel(const int* x, int* y) {
  __shared__ int first;
  const unsigned t = threadIdx.x;
  if (BROKEN ? t % 32 == 0 : t == 0) first = x[t];  // found: two_warps_write
  __syncthreads();
  y[t] = first;
}
PLANTED(two_warps_write) {
  run(two_warps_write_kernel<BROKEN>, 1, 64, 64);
}

// Dynamic shared memory that is used again under another type.
template <bool BROKEN>
__global__ void reused_dynamic_kernel(const int* x, int* y) {
  SIMT_DYNAMIC_SHARED(int, words);
  short* halves = reinterpret_cast<short*>(words);
  const unsigned t = threadIdx.x;
  words[t] = x[t];
  __syncthreads();
  const int other = words[63 - t];  // found: reused_dynamic
  if (!BROKEN) __syncthreads();
  halves[t] = static_cast<short>(other);  // found: reused_dynamic
  __syncthreads();
  y[t] = halves[t ^ 32];
}
PLANTED(reused_dynamic) {
  Array<int> x(harness::counting<int>(64), "x"), y(size_t{64}, "y");
  simt::launch(reused_dynamic_kernel<BROKEN>, 1, 64, 256, nullptr, x.data(), y.data());
}

// Neighbouring bytes of one word are different places.
template <bool BROKEN>
__global__ void bytes_of_a_word_kernel(const int* x, int* y) {
  __shared__ unsigned char s[32];
  const unsigned t = threadIdx.x;
  s[BROKEN ? t & ~1u : t] = static_cast<unsigned char>(x[t]);  // found: bytes_of_a_word
  __syncwarp();
  y[t] = s[BROKEN ? t & ~1u : t];
}
PLANTED(bytes_of_a_word) {
  run(bytes_of_a_word_kernel<BROKEN>, 1, 32, 32);
}

// ---- global memory

template <bool BROKEN>
__global__ void threads_share_an_element_kernel(const int* x, int* y) {
  const unsigned t = threadIdx.x;
  y[BROKEN ? t / 2 : t] = x[t];  // found: threads_share_an_element
}
PLANTED(threads_share_an_element) {
  run(threads_share_an_element_kernel<BROKEN>, 1, 64, BROKEN ? 32 : 64);
}

template <bool BROKEN>
__global__ void blocks_share_an_element_kernel(const int* x, int* y) {
  const unsigned at = BROKEN ? threadIdx.x : blockIdx.x * 32 + threadIdx.x;
  y[at] = x[at];  // found: blocks_share_an_element
}
PLANTED(blocks_share_an_element) {
  run(blocks_share_an_element_kernel<BROKEN>, 2, 32, BROKEN ? 32 : 64);
}

// Nothing orders the blocks of one launch, not even their numbers.
__global__ void first_half_kernel(const int* x, int* y) {
  if (blockIdx.x == 0) y[threadIdx.x] = x[threadIdx.x];
}
__global__ void second_half_kernel(int* y) {
  y[32 + threadIdx.x] = y[threadIdx.x] + 1;
}
__global__ void blocks_in_sequence_kernel(const int* x, int* y) {
  const unsigned t = threadIdx.x;
  if (blockIdx.x == 0)
    y[t] = x[t];  // found: blocks_in_sequence
  else
    y[32 + t] = y[t] + 1;  // found: blocks_in_sequence
}
PLANTED(blocks_in_sequence) {
  if constexpr (BROKEN) {
    run(blocks_in_sequence_kernel, 2, 32, 64);
  } else {
    Array<int> x(harness::counting<int>(32), "x"), y(size_t{64}, "y");
    launch(first_half_kernel, 1, 32, x.data(), y.data());
    launch(second_half_kernel, 1, 32, y.data());
  }
}

template <bool BROKEN>
__global__ void global_scratch_kernel(const int* x, int* y) {
  const unsigned t = threadIdx.x;
  y[t] = x[t];  // found: global_scratch
  if (!BROKEN) __syncthreads();
  const int other = y[63 - t];  // found: global_scratch
  __syncthreads();
  y[t] = other;
}
PLANTED(global_scratch) {
  run(global_scratch_kernel<BROKEN>, 1, 64, 64);
}

// An atomic write and a plain read are a race like any other.
template <bool BROKEN>
__global__ void plain_read_of_atomic_kernel(const int* x, int* y) {
  __shared__ int sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, x[threadIdx.x]);  // found: plain_read_of_atomic
  if (!BROKEN) __syncthreads();
  y[threadIdx.x] = sum;  // found: plain_read_of_atomic
}
PLANTED(plain_read_of_atomic) {
  run(plain_read_of_atomic_kernel<BROKEN>, 1, 64, 64);
}
