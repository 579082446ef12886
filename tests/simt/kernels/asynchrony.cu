// Planted bugs around asynchronous copies.
#include "harness.h"

using harness::Array;
using harness::launch;

template <class Kernel>
static void run(Kernel kernel, unsigned threads) {
  Array<int> x(harness::counting<int>(512), "x"), y(size_t{threads}, "y");
  launch(kernel, 1, threads, x.data(), y.data());
}

// ---- cp.async

template <bool BROKEN>
__global__ void missing_wait_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[128];
  const unsigned t = threadIdx.x;
  simt::cp_async<16>(s + 4 * t, x + 4 * t);
  simt::cp_async_commit();
  if (!BROKEN) simt::cp_async_wait<0>();
  __syncthreads();
  y[t] = s[t];  // found: missing_wait
  simt::cp_async_wait<0>();
}
PLANTED(missing_wait) {
  run(missing_wait_kernel<BROKEN>, 32);
}

// What lands late buries what was written meanwhile.
template <bool BROKEN>
__global__ void overwritten_target_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[128];
  const unsigned t = threadIdx.x;
  simt::cp_async<16>(s + 4 * t, x + 4 * t);
  simt::cp_async_commit();
  if (!BROKEN) simt::cp_async_wait<0>();
  s[4 * t] = 1;  // found: overwritten_target
  simt::cp_async_wait<0>();
  y[t] = s[4 * t];
}
PLANTED(overwritten_target) {
  run(overwritten_target_kernel<BROKEN>, 32);
}

// Of two groups the wait admits one in flight: the second.
template <bool BROKEN>
__global__ void wait_for_too_few_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[2][128];
  const unsigned t = threadIdx.x;
  for (unsigned group = 0; group < 2; ++group) {
    simt::cp_async<16>(&s[group][4 * t], x + 128 * group + 4 * t);
    simt::cp_async_commit();
  }
  simt::cp_async_wait<BROKEN ? 1 : 0>();
  __syncthreads();
  y[t] = s[0][t] + s[1][t];  // found: wait_for_too_few
  simt::cp_async_wait<0>();
}
PLANTED(wait_for_too_few) {
  run(wait_for_too_few_kernel<BROKEN>, 32);
}

// A wait is for the thread's own copies: what others copied needs a barrier as well.
template <bool BROKEN>
__global__ void wait_without_barrier_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[256];
  const unsigned t = threadIdx.x;
  simt::cp_async<16>(s + 4 * t, x + 4 * t);  // found: wait_without_barrier
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  if (!BROKEN) __syncthreads();
  y[t] = s[255 - 4 * t];  // found: wait_without_barrier
}
PLANTED(wait_without_barrier) {
  run(wait_without_barrier_kernel<BROKEN>, 64);
}

template <bool BROKEN>
__global__ void misaligned_copy_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[128];
  const unsigned t = threadIdx.x;
  simt::cp_async<16>(s + 4 * t, x + 4 * t + (BROKEN ? 2 : 0));  // found: misaligned_copy
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  y[t] = s[4 * t];
}
PLANTED(misaligned_copy) {
  run(misaligned_copy_kernel<BROKEN>, 32);
}

// ---- bulk copies and mbarriers: one thread loads, the others consume

enum class Bug { none, no_wait, early_release, extra_arrival, misaligned };

template <Bug BUG>
__global__ void bulk_kernel(const int* x, int* y) {
  constexpr int kConsumers = 64, kBytes = kConsumers * 4, kSteps = 4;
  __shared__ __align__(16) int stage[kConsumers + 4];
  __shared__ uint64_t full, empty;
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    simt::mbarrier_init(&full, 1);
    simt::mbarrier_init(&empty, kConsumers);
  }
  __syncthreads();
  if (t == kConsumers)
    for (int i = 0; i < kSteps; ++i) {
      if (i) simt::mbarrier_wait(&empty, static_cast<unsigned>(i - 1) & 1);
      simt::mbarrier_arrive_expect(&full, kBytes);
      if (BUG == Bug::extra_arrival) simt::mbarrier_arrive(&full);  // found: extra_arrival
      const int* from = x + i * kConsumers + (BUG == Bug::misaligned);
      simt::bulk_copy(stage, from, kBytes, &full);  // found: misaligned_bulk early_release
    }
  if (t >= kConsumers) return;
  int sum = 0;
  for (int i = 0; i < kSteps; ++i) {
    if (BUG != Bug::no_wait) simt::mbarrier_wait(&full, static_cast<unsigned>(i) & 1);
    if (BUG == Bug::early_release) simt::mbarrier_arrive(&empty);
    sum += stage[t ^ 13];  // found: missing_mbarrier_wait early_release
    if (BUG != Bug::early_release) simt::mbarrier_arrive(&empty);
  }
  y[t] = sum;
}

template <Bug BUG>
static void run_bulk() {
  Array<int> x(harness::counting<int>(512), "x"), y(size_t{64}, "y");
  launch(bulk_kernel<BUG>, 1, 96, x.data(), y.data());
}
PLANTED(missing_mbarrier_wait) {
  run_bulk<BROKEN ? Bug::no_wait : Bug::none>();
}
PLANTED(early_release) {
  run_bulk<BROKEN ? Bug::early_release : Bug::none>();
}
PLANTED(extra_arrival) {
  run_bulk<BROKEN ? Bug::extra_arrival : Bug::none>();
}
PLANTED(misaligned_bulk) {
  run_bulk<BROKEN ? Bug::misaligned : Bug::none>();
}

template <bool BROKEN>
__global__ void no_mbarrier_init_kernel(const int* x, int* y) {
  __shared__ uint64_t barrier;
  if (!BROKEN && threadIdx.x == 0) simt::mbarrier_init(&barrier, 64);
  __syncthreads();
  simt::mbarrier_arrive(&barrier);  // found: no_mbarrier_init
  simt::mbarrier_wait(&barrier, 0);
  y[threadIdx.x] = x[threadIdx.x];
}
PLANTED(no_mbarrier_init) {
  run(no_mbarrier_init_kernel<BROKEN>, 64);
}
