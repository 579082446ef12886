// Asynchronous copies: groups of cp.async, zero fill, and a pipeline of bulk copies and mbarriers.
#include "harness.h"

using harness::Array;
using harness::launch;

// ---- cp.async

// Three groups in flight; each wait admits one more to be read.
__global__ void groups_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[3][128];
  const unsigned t = threadIdx.x;
  for (unsigned group = 0; group < 3; ++group) {
    simt::cp_async<16>(&s[group][4 * t], x + 128 * group + 4 * t);
    simt::cp_async_commit();
  }
  simt::cp_async_wait<2>();
  __syncwarp();
  int sum = s[0][127 - t];
  simt::cp_async_wait<1>();
  __syncwarp();
  sum += 2 * s[1][127 - t];
  simt::cp_async_wait<0>();
  __syncwarp();
  y[t] = sum + 4 * s[2][127 - t];
}

TEST(cp_async_groups) {
  Array<int> x(harness::integers<int>(384, 7), "x"), y(size_t{32}, "y");
  launch(groups_kernel, 1, 32, x.data(), y.data());
  for (size_t t = 0; t < 32; ++t) REQUIRE(y[t] == x[127 - t] + 2 * x[255 - t] + 4 * x[383 - t]);
  y.publish();
}

// Thread t copies `sizes[t]` bytes of BYTES; the rest of them is zero.
template <int BYTES>
__global__ void zero_fill_kernel(const uint8_t* x, const int* sizes, uint8_t* y) {
  __shared__ __align__(16) uint8_t s[17 * BYTES];
  const unsigned t = threadIdx.x;
  simt::cp_async<BYTES>(s + t * BYTES, x + t * BYTES, sizes[t]);
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  __syncwarp(0x1ffffu);
  const unsigned from = 16 - t;
  for (unsigned i = 0; i < BYTES; ++i) y[t * BYTES + i] = s[from * BYTES + i];
}

template <int BYTES>
static void zero_fill_of() {
  Array<uint8_t> x(harness::counting<uint8_t>(17 * BYTES, 5), "x"), y(size_t{17 * BYTES}, "y");
  std::vector<int> sizes;
  for (int t = 0; t < 17; ++t) sizes.push_back(t % (BYTES + 1));
  Array<int> size_array(sizes, "sizes");
  launch(zero_fill_kernel<BYTES>, 1, 17, x.data(), size_array.data(), y.data());
  for (size_t t = 0; t < 17; ++t)
    for (size_t i = 0; i < BYTES; ++i) {
      const size_t from = 16 - t;
      const bool copied = static_cast<int>(i) < sizes[from];
      REQUIRE(y[t * BYTES + i] == (copied ? x[from * BYTES + i] : 0));
    }
  y.publish();
}

TEST(cp_async_fills_with_zeros) {
  zero_fill_of<4>();
  zero_fill_of<8>();
  zero_fill_of<16>();
}

// A wait that has copies without a commit before it leaves them in flight.
__global__ void uncommitted_kernel(const int* x, int* y) {
  __shared__ __align__(16) int s[8];
  if (threadIdx.x == 0) {
    simt::cp_async<16>(s, x);
    simt::cp_async_commit();
    simt::cp_async<16>(s + 4, x + 4);
    simt::cp_async_wait<0>();
    y[0] = s[3];
    simt::cp_async_commit();
    simt::cp_async_wait<0>();
    y[1] = s[7];
  }
}

TEST(cp_async_before_the_commit) {
  Array<int> x(harness::counting<int>(8), "x"), y(size_t{2}, "y");
  launch(uncommitted_kernel, 1, 32, x.data(), y.data());
  REQUIRE(y[0] == 3 && y[1] == 7);
}

// ---- a warp that loads and four that consume, over a ring of stages

constexpr int kStages = 3, kConsumers = 128;

__global__ void pipeline_kernel(int steps, const float* x, float* y) {
  SIMT_DYNAMIC_SHARED(float, stage);  // [kStages][kConsumers], then the barriers
  uint64_t* full = reinterpret_cast<uint64_t*>(stage + kStages * kConsumers);
  uint64_t* empty = full + kStages;
  const int t = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * steps;
  if (t == 0)
    for (int s = 0; s < kStages; ++s) {
      simt::mbarrier_init(&full[s], 1);
      simt::mbarrier_init(&empty[s], kConsumers);
    }
  __syncthreads();
  if (t == kConsumers)
    for (int i = 0; i < steps; ++i) {
      const int s = i % kStages;
      if (i >= kStages) simt::mbarrier_wait(&empty[s], static_cast<unsigned>(i / kStages - 1) & 1);
      simt::mbarrier_arrive_expect(&full[s], kConsumers * 4);
      simt::bulk_copy(stage + s * kConsumers, x + (first + i) * kConsumers, kConsumers * 4,
                      &full[s]);
    }
  if (t >= kConsumers) return;
  float sum = 0;
  for (int i = 0; i < steps; ++i) {
    const int s = i % kStages;
    simt::mbarrier_wait(&full[s], static_cast<unsigned>(i / kStages) & 1);
    sum = fma(sum, 0.5f, stage[s * kConsumers + (t ^ 77)]);
    simt::mbarrier_arrive(&empty[s]);
  }
  y[static_cast<int>(blockIdx.x) * kConsumers + t] = sum;
}

TEST(pipeline_of_bulk_copies) {
  for (const int steps : {1, 2, 3, 4, 11}) {
    const auto rows = static_cast<size_t>(steps);
    Array<float> x(harness::integers<float>(2 * rows * kConsumers, 8), "x");
    Array<float> y(size_t{2 * kConsumers}, "y");
    simt::launch(pipeline_kernel, 2, kConsumers + 32, kStages * (kConsumers * 4 + 16), nullptr,
                 steps, x.data(), y.data());
    for (size_t block = 0; block < 2; ++block)
      for (size_t t = 0; t < kConsumers; ++t) {
        float sum = 0;
        for (size_t i = 0; i < rows; ++i)
          sum = sum * float(0.5) + x[(block * rows + i) * kConsumers + (t ^ 77)];
        REQUIRE(y[block * kConsumers + t] == sum);
      }
    y.publish();
  }
}
