// Planted bugs of single accesses: outside arrays, before they are written, misaligned; and
// arithmetic without a meaning.
#include "harness.h"

using harness::Array;
using harness::launch;

template <class Kernel>
static void run(Kernel kernel, unsigned blocks, unsigned threads) {
  Array<int> x(harness::counting<int>(64), "x"), y(size_t{blocks * threads}, "y");
  launch(kernel, blocks, threads, x.data(), y.data());
}

// ---- bounds

template <bool BROKEN>
__global__ void past_the_end_kernel(const int* x, int* y) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  y[i] = x[i + (BROKEN ? 1 : 0)];  // found: past_the_end
}
PLANTED(past_the_end) {
  run(past_the_end_kernel<BROKEN>, 2, 32);
}

template <bool BROKEN>
__global__ void before_the_start_kernel(const int* x, int* y) {
  const int t = static_cast<int>(threadIdx.x);
  y[t - (BROKEN && t == 0)] = x[t];  // found: before_the_start
}
PLANTED(before_the_start) {
  run(before_the_start_kernel<BROKEN>, 1, 64);
}

// The last vector runs over the end of an array whose size is not a multiple of four.
template <bool BROKEN>
__global__ void vector_over_the_end_kernel(const int* x, int* y) {
  const unsigned first = 4 * threadIdx.x;
  if (!BROKEN && first + 4 > 62) return;
  const int4 value = *reinterpret_cast<const int4*>(x + first);  // found: vector_over_the_end
  y[threadIdx.x] = value.x + value.y + value.z + value.w;
}
PLANTED(vector_over_the_end) {
  Array<int> x(harness::counting<int>(62), "x");
  Array<int> y(std::vector<int>(16), "y", simt::Contents::in_out);
  launch(vector_over_the_end_kernel<BROKEN>, 1, 16, x.data(), y.data());
}

template <bool BROKEN>
__global__ void null_pointer_kernel(const int* x, int* y) {
  const int* absent = BROKEN ? nullptr : x;
  y[threadIdx.x] = absent[threadIdx.x + 3];  // found: null_pointer
}
PLANTED(null_pointer) {
  run(null_pointer_kernel<BROKEN>, 1, 32);
}

__global__ void copy_kernel(const int* x, int* y) {
  y[threadIdx.x] = x[threadIdx.x];  // found: released_memory
}
PLANTED(released_memory) {
  Array<int> y(size_t{32}, "y");
  Array<int> x(harness::counting<int>(32), "x");
  if (BROKEN) simt::unregister_memory(x.data());
  launch(copy_kernel, 1, 32, x.data(), y.data());
}

template <bool BROKEN>
__global__ void past_dynamic_shared_kernel(const int* x, int* y) {
  SIMT_DYNAMIC_SHARED(int, s);
  const unsigned t = threadIdx.x;
  s[t] = 0;
  __syncthreads();
  s[t + (BROKEN ? 1 : 0)] = x[t];  // found: past_dynamic_shared
  __syncthreads();
  y[t] = s[t];
}
PLANTED(past_dynamic_shared) {
  Array<int> x(harness::counting<int>(64), "x"), y(size_t{64}, "y");
  simt::launch(past_dynamic_shared_kernel<BROKEN>, 1, 64, 256, nullptr, x.data(), y.data());
}

template <bool BROKEN>
__global__ void static_shared_index_kernel(const int* x, int* y) {
  __shared__ int first[33], second[33];
  const unsigned t = threadIdx.x;
  first[t] = x[t];
  second[t] = x[t];
  __syncthreads();
  y[t] = first[t + (BROKEN ? 2 : 0)] + second[t];  // found: static_shared_index
}
PLANTED(static_shared_index) {
  run(static_shared_index_kernel<BROKEN>, 1, 33);
}

template <bool BROKEN>
__global__ void static_shared_pointer_kernel(const int* x, int* y) {
  __shared__ __align__(128) int first[33];
  __shared__ __align__(128) int second[33];
  const unsigned t = threadIdx.x;
  int* p = first;
  p[t + (BROKEN ? 1 : 0)] = x[t];  // found: static_shared_pointer
  second[t] = x[t];
  __syncthreads();
  y[t] = p[t] + second[t];
}
PLANTED(static_shared_pointer) {
  run(static_shared_pointer_kernel<BROKEN>, 1, 33);
}

// ---- undefined contents

template <bool BROKEN>
__global__ void unwritten_static_shared_kernel(const int* x, int* y) {
  __shared__ int s[64];
  const unsigned t = threadIdx.x;
  if (!BROKEN || t < 63) s[t] = x[t];
  __syncthreads();
  y[t] = s[t];  // found: unwritten_static_shared
}
PLANTED(unwritten_static_shared) {
  run(unwritten_static_shared_kernel<BROKEN>, 1, 64);
}

// What a block wrote is gone for the next one.
template <bool BROKEN>
__global__ void left_by_another_block_kernel(const int* x, int* y) {
  SIMT_DYNAMIC_SHARED(int, s);
  const unsigned t = threadIdx.x, at = blockIdx.x * 32 + t;
  if (!BROKEN || blockIdx.x == 0) s[t] = x[t];
  __syncthreads();
  y[at] = s[t];  // found: left_by_another_block
}
PLANTED(left_by_another_block) {
  Array<int> x(harness::counting<int>(64), "x"), y(size_t{64}, "y");
  simt::launch(left_by_another_block_kernel<BROKEN>, 2, 32, 128, nullptr, x.data(), y.data());
}

template <bool BROKEN>
__global__ void sum_into_kernel(const int* x, int* y) {
  const unsigned t = threadIdx.x;
  if (!BROKEN) y[t] = 0;
  y[t] += x[t];  // found: unwritten_global unwritten_workspace
}
PLANTED(unwritten_global) {
  run(sum_into_kernel<BROKEN>, 1, 32);
}

PLANTED(unwritten_workspace) {
  int* workspace = static_cast<int*>(simt::allocate(256));
  if (!BROKEN) simt::fill_zero(workspace, 256, nullptr);
  Array<int> x(harness::counting<int>(64), "x");
  launch(sum_into_kernel<true>, 1, 64, x.data(), workspace);
  simt::release(workspace);
}

template <bool BROKEN>
__global__ void incomplete_output_kernel(const int* x, int* y) {
  const unsigned t = threadIdx.x;
  if (!BROKEN || t < 29) y[t] = x[t];
}
PLANTED(incomplete_output) {
  run(incomplete_output_kernel<BROKEN>, 1, 32);
}

template <bool BROKEN>
__global__ void writes_an_input_kernel(const int* x, int* y) {
  const unsigned t = threadIdx.x;
  y[t] = x[t];
  if (BROKEN) const_cast<int*>(x)[t] = 0;  // found: writes_an_input
}
PLANTED(writes_an_input) {
  run(writes_an_input_kernel<BROKEN>, 1, 32);
}

// ---- alignment

template <bool BROKEN>
__global__ void misaligned_vector_kernel(const int* x, int* y) {
  const int* first = x + 4 * threadIdx.x + (BROKEN ? 1 : 0);
  const int4 value = *reinterpret_cast<const int4*>(first);  // found: misaligned_vector
  y[threadIdx.x] = value.x;
}
PLANTED(misaligned_vector) {
  run(misaligned_vector_kernel<BROKEN>, 1, 8);
}

// ---- arithmetic

template <bool BROKEN>
__global__ void signed_overflow_kernel(const int* x, int* y) {
  const int large = 0x7fffffff - 30;
  y[threadIdx.x] = x[threadIdx.x] + (BROKEN ? large : 30);  // found: signed_overflow
}
PLANTED(signed_overflow) {
  run(signed_overflow_kernel<BROKEN>, 1, 32);
}

template <bool BROKEN>
__global__ void wide_shift_kernel(const int* x, int* y) {
  y[threadIdx.x] =
      static_cast<int>(1u << (x[threadIdx.x] + (BROKEN ? 1 : 0)));  // found: wide_shift
}
PLANTED(wide_shift) {
  run(wide_shift_kernel<BROKEN>, 1, 32);
}

template <bool BROKEN>
__global__ void division_by_zero_kernel(const int* x, int* y) {
  y[threadIdx.x] = 100 / (x[threadIdx.x] + (BROKEN ? 0 : 1));  // found: division_by_zero
}
PLANTED(division_by_zero) {
  run(division_by_zero_kernel<BROKEN>, 1, 32);
}
