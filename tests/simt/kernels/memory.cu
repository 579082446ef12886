// Indices, shared memory, atomics, vectors and integer functions.
#include "harness.h"

using harness::Array;
using harness::launch;

// ---- indices

__global__ void indices_kernel(unsigned* y) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  y[block * threads + thread] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z +
                                1000 * (threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z);
}

TEST(indices_in_three_dimensions) {
  Array<unsigned> y(2 * 3 * 2 * 5 * 4 * 3, "y");
  launch(indices_kernel, dim3(2, 3, 2), dim3(5, 4, 3), y.data());
  size_t i = 0;
  for (unsigned bz = 0; bz < 2; ++bz)
    for (unsigned by = 0; by < 3; ++by)
      for (unsigned bx = 0; bx < 2; ++bx)
        for (unsigned tz = 0; tz < 3; ++tz)
          for (unsigned ty = 0; ty < 4; ++ty)
            for (unsigned tx = 0; tx < 5; ++tx)
              REQUIRE(y[i++] == bx + 10 * by + 100 * bz + 1000 * (tx + 10 * ty + 100 * tz));
  y.publish();
}

// ---- shared memory

// Two instantiations have arrays of their own, as has the function they call.
template <class T, int N>
__device__ T neighbour(T value) {
  __shared__ T cells[N];
  __syncthreads();
  cells[threadIdx.x] = value;
  __syncthreads();
  return cells[(threadIdx.x + 1) % N];
}

template <class T, int N>
__global__ void static_shared_kernel(const T* x, T* y) {
  __shared__ T tile[2][N];
  const unsigned t = threadIdx.x, at = blockIdx.x * N + t;
  tile[0][t] = x[at];
  __syncthreads();
  tile[1][N - 1 - t] = tile[0][t];
  __syncthreads();
  y[at] = neighbour<T, N>(tile[1][t]) + neighbour<T, N>(tile[0][t]);
}

template <class T, int N>
static void static_shared_of() {
  Array<T> x(harness::integers<T>(4 * N, 3), "x"), y(size_t{4 * N}, "y");
  launch(static_shared_kernel<T, N>, 4, N, x.data(), y.data());
  for (size_t block = 0; block < 4; ++block)
    for (size_t t = 0; t < N; ++t) {
      const size_t next = (t + 1) % N;
      REQUIRE(y[block * N + t] == x[block * N + N - 1 - next] + x[block * N + next]);
    }
  y.publish();
}

TEST(static_shared_arrays_of_templates) {
  static_shared_of<float, 64>();
  static_shared_of<float, 96>();
  static_shared_of<double, 64>();
  static_shared_of<int, 33>();
}

// Two arrays laid out by hand in one dynamic allocation.
__global__ void dynamic_shared_kernel(int n, const double* x, double* y) {
  SIMT_DYNAMIC_SHARED(double, doubles);
  int* order = reinterpret_cast<int*>(doubles + n);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < n; i += static_cast<int>(blockDim.x)) {
    doubles[i] = x[i];
    order[i] = n - 1 - i;
  }
  __syncthreads();
  for (int i = t; i < n; i += static_cast<int>(blockDim.x)) y[i] = doubles[order[i]];
}

TEST(dynamic_shared_memory) {
  for (const int n : {1, 31, 100, 1000}) {
    const auto size = static_cast<size_t>(n);
    Array<double> x(harness::counting<double>(size), "x"), y(size, "y");
    simt::launch(dynamic_shared_kernel, 1, 64, size * 12, nullptr, n, x.data(), y.data());
    for (size_t i = 0; i < size; ++i) REQUIRE(y[i] == double(size - 1 - i));
    y.publish();
  }
}

// ---- atomics: results that do not depend on the order, from many blocks

template <class T>
__global__ void atomics_kernel(T* cells, T* tickets) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&cells[0], T(i % 7));
  tickets[i] = atomicAdd(&cells[1], T(1));
  if constexpr (!std::is_same_v<T, double>) atomicExch(&cells[2], T(5));
  if constexpr (std::is_integral_v<T>) {
    atomicMax(&cells[3], T(i));
    atomicMin(&cells[4], T(i + 3));
  }
}

template <class T>
static void atomics_of() {
  constexpr unsigned kBlocks = 16, kThreads = 96, kAll = kBlocks * kThreads;
  Array<T> cells({T(0), T(0), T(0), T(0), T(9999)}, "cells", simt::Contents::in_out);
  Array<T> tickets(size_t{kAll}, "tickets");
  launch(atomics_kernel<T>, kBlocks, kThreads, cells.data(), tickets.data());
  unsigned sum = 0;
  for (unsigned i = 0; i < kAll; ++i) sum += i % 7;
  REQUIRE(cells[0] == T(sum) && cells[1] == T(kAll));
  if constexpr (!std::is_same_v<T, double>) REQUIRE(cells[2] == T(5));
  if constexpr (std::is_integral_v<T>) REQUIRE(cells[3] == T(kAll - 1) && cells[4] == T(3));
  std::vector<bool> drawn(kAll);  // each ticket once
  for (unsigned i = 0; i < kAll; ++i) drawn[static_cast<size_t>(tickets[i])] = true;
  for (unsigned i = 0; i < kAll; ++i) REQUIRE(drawn[i]);
  cells.publish();
}

TEST(atomics) {
  atomics_of<int>();
  atomics_of<unsigned>();
  atomics_of<unsigned long long>();
  atomics_of<float>();
  atomics_of<double>();
}

__global__ void compare_and_swap_kernel(unsigned* sum, unsigned long long* largest,
                                        unsigned* bits) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned seen = 0, before;  // a loop that ends: each round some thread gets on
  do {
    before = seen;
    seen = atomicCAS(sum, before, before + i);
  } while (seen != before);
  unsigned long long old = 0, assumed;
  do {
    assumed = old;
    if (assumed >= i) break;
    old = atomicCAS(largest, assumed, static_cast<unsigned long long>(i));
  } while (old != assumed);
  atomicOr(bits, 1u << (i % 29));
}

TEST(compare_and_swap) {
  Array<unsigned> sum({0u}, "sum", simt::Contents::in_out),
      bits({0u}, "bits", simt::Contents::in_out);
  Array<unsigned long long> largest({0ull}, "largest", simt::Contents::in_out);
  launch(compare_and_swap_kernel, 8, 64, sum.data(), largest.data(), bits.data());
  REQUIRE(sum[0] == 511 * 512 / 2 && largest[0] == 511 && bits[0] == (1u << 29) - 1);
}

__global__ void shared_atomics_kernel(const int* x, int n, unsigned* counts) {
  __shared__ unsigned own[16];
  if (threadIdx.x < 16) own[threadIdx.x] = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    atomicAdd(&own[x[i] & 15], 1u);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&counts[threadIdx.x], own[threadIdx.x]);
}

TEST(atomics_in_shared_memory) {
  Array<int> x(harness::integers<int>(1000, 9), "x");
  Array<unsigned> counts(std::vector<unsigned>(16), "counts", simt::Contents::in_out);
  launch(shared_atomics_kernel, 3, 128, x.data(), 1000, counts.data());
  std::vector<unsigned> expected(16);
  for (size_t i = 0; i < 1000; ++i) expected[static_cast<size_t>(x[i] & 15)] += 3;
  for (size_t i = 0; i < 16; ++i) REQUIRE(counts[i] == expected[i]);
  counts.publish();
}

// ---- vectors

template <class Vector, class T>
__global__ void vectors_kernel(const T* x, T* y) {
  const unsigned i = threadIdx.x;
  const Vector value = __ldg(reinterpret_cast<const Vector*>(x) + i);
  __stcs(reinterpret_cast<Vector*>(y) + i, value);
}

template <class Vector, class T>
static void vectors_of() {
  constexpr size_t kSize = 32 * sizeof(Vector) / sizeof(T);
  Array<T> x(harness::counting<T>(kSize), "x"), y(kSize, "y");
  launch(vectors_kernel<Vector, T>, 1, 32, x.data(), y.data());
  for (size_t i = 0; i < kSize; ++i) REQUIRE(y[i] == x[i]);
  y.publish();
}

TEST(vector_loads) {
  vectors_of<float4, float>();
  vectors_of<float2, float>();
  vectors_of<int4, int>();
  vectors_of<uint2, unsigned>();
  vectors_of<double2, double>();
}

// ---- functions on integers

__global__ void integers_kernel(const unsigned* x, unsigned* y) {
  const unsigned value = x[threadIdx.x];
  unsigned* own = y + 6 * threadIdx.x;
  own[0] = static_cast<unsigned>(__popc(value));
  own[1] = static_cast<unsigned>(__clz(static_cast<int>(value)));
  own[2] = static_cast<unsigned>(__ffs(static_cast<int>(value)));
  own[3] = __brev(value);
  own[4] = __umulhi(value, 0xdeadbeefu);
  own[5] = __float_as_uint(__uint_as_float(value)) + min(value, 3u) + max(value, 5u);
}

TEST(functions_on_integers) {
  Array<unsigned> x({0u, 1u, 0x80000000u, 0x00f0u, 0x12345678u, 7u, 0x7fffffffu, 100u}, "x");
  Array<unsigned> y(48, "y");
  launch(integers_kernel, 1, 8, x.data(), y.data());
  for (size_t i = 0; i < 8; ++i) {
    unsigned ones = 0, leading = 0, first = 0, reversed = 0;
    for (unsigned bit = 0; bit < 32; ++bit) {
      const unsigned set = x[i] >> bit & 1;
      ones += set;
      leading = set ? 0 : leading + 1;
      if (set && !first) first = bit + 1;
      reversed |= set << (31 - bit);
    }
    const uint64_t product = uint64_t{x[i]} * 0xdeadbeefu;
    REQUIRE(y[6 * i] == ones && y[6 * i + 1] == leading && y[6 * i + 2] == first);
    REQUIRE(y[6 * i + 3] == reversed && y[6 * i + 4] == unsigned(product >> 32));
    REQUIRE(y[6 * i + 5] == x[i] + std::min(x[i], 3u) + std::max(x[i], 5u));
  }
}
