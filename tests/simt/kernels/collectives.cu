// Warp collectives and barrier votes against plain loops over the lanes.
#include "harness.h"

using harness::Array;
using harness::launch;

constexpr unsigned kFull = 0xffffffffu;

enum class Shuffle { index, up, down, exclusive_or };

template <Shuffle KIND, class T>
__device__ T shuffled(unsigned mask, T value, int argument, int width) {
  switch (KIND) {
    case Shuffle::index:
      return __shfl_sync(mask, value, argument, width);
    case Shuffle::up:
      return __shfl_up_sync(mask, value, static_cast<unsigned>(argument), width);
    case Shuffle::down:
      return __shfl_down_sync(mask, value, static_cast<unsigned>(argument), width);
    default:
      return __shfl_xor_sync(mask, value, argument, width);
  }
}

template <Shuffle KIND, class T>
__global__ void shuffle_kernel(const T* x, T* y, int argument, int width) {
  y[threadIdx.x] = shuffled<KIND>(kFull, x[threadIdx.x], argument, width);
}

// The lane a shuffle reads, in the words of the programming guide: outside the segment of `width`
// lanes it reads its own.
static int source_of(Shuffle kind, int lane, int argument, int width) {
  const int segment = lane / width * width, within = lane % width;
  const int wanted = kind == Shuffle::index  ? argument % width
                     : kind == Shuffle::up   ? within - argument
                     : kind == Shuffle::down ? within + argument
                                             : within ^ argument;
  return wanted < 0 || wanted >= width ? lane : segment + wanted;
}

template <Shuffle KIND, class T>
static void shuffles_of() {
  Array<T> x(harness::integers<T>(64, 1), "x");
  for (const int width : {32, 16, 8, 4, 2, 1})
    for (const int argument : {0, 1, 3, 7, 17, 31}) {
      if (KIND == Shuffle::exclusive_or && argument >= width) continue;
      Array<T> y(64, "y");
      launch(shuffle_kernel<KIND, T>, 1, 64, x.data(), y.data(), argument, width);
      for (int lane = 0; lane < 64; ++lane) {
        const int source = lane / 32 * 32 + source_of(KIND, lane % 32, argument, width);
        REQUIRE(y[static_cast<size_t>(lane)] == x[static_cast<size_t>(source)]);
      }
      y.publish();
    }
}

TEST(shuffles) {
  shuffles_of<Shuffle::index, int>();
  shuffles_of<Shuffle::up, int>();
  shuffles_of<Shuffle::down, int>();
  shuffles_of<Shuffle::exclusive_or, int>();
}

TEST(shuffles_of_floats_and_eight_bytes) {
  shuffles_of<Shuffle::down, float>();
  shuffles_of<Shuffle::exclusive_or, double>();
  shuffles_of<Shuffle::index, long long>();
}

// ---- partial and disjoint masks

// Odd and even lanes call the same instruction with masks of their own, at different times.
__global__ void parity_masks_kernel(int* y) {
  const unsigned mask = threadIdx.x % 2 ? 0xaaaaaaaau : 0x55555555u;
  const int lane = static_cast<int>(threadIdx.x);
  int sum = lane;
  for (int distance = 2; distance < 32; distance *= 2) sum += __shfl_xor_sync(mask, sum, distance);
  y[lane] = sum;
}

// Two halves of a warp in different branches.
__global__ void branches_kernel(unsigned* y) {
  const unsigned lane = threadIdx.x;
  unsigned result;
  if (lane < 12)
    result = __ballot_sync(0x00000fffu, lane % 3 == 0);
  else
    result = __reduce_add_sync(0xfffff000u, lane);
  __syncwarp();
  y[lane] = __shfl_sync(kFull, result, static_cast<int>(lane) ^ 31);
}

TEST(partial_and_disjoint_masks) {
  Array<int> sums(32, "sums");
  launch(parity_masks_kernel, 1, 32, sums.data());
  for (size_t lane = 0; lane < 32; ++lane) REQUIRE(sums[lane] == (lane % 2 ? 256 : 240));
  sums.publish();
  Array<unsigned> results(32, "results");
  launch(branches_kernel, 1, 32, results.data());
  for (size_t lane = 0; lane < 32; ++lane)
    REQUIRE(results[lane] == ((lane ^ 31) < 12 ? 0x249u : 430u));
  results.publish();
}

// The last warp of a block may have fewer lanes than 32.
__global__ void short_warp_kernel(unsigned* y) {
  const unsigned mask = threadIdx.x < 32 ? kFull : 0xffu;
  const unsigned active = __activemask();  // any set that has this lane
  y[threadIdx.x] = __reduce_max_sync(mask, threadIdx.x) + 100 * (active >> threadIdx.x % 32 & 1);
}

TEST(short_last_warp) {
  Array<unsigned> y(40, "y");
  launch(short_warp_kernel, 1, 40, y.data());
  for (size_t i = 0; i < 40; ++i) REQUIRE(y[i] == (i < 32 ? 131 : 139));
}

// Whole warps may end early where no barrier follows.
__global__ void early_warps_kernel(const int* x, int* y) {
  if (threadIdx.x >= 32) return;
  int sum = x[threadIdx.x];
  for (int distance = 16; distance; distance /= 2)
    sum += __shfl_down_sync(kFull, sum, static_cast<unsigned>(distance));
  if (threadIdx.x == 0) *y = sum;
}

TEST(warps_that_end_early) {
  Array<int> x(harness::counting<int>(32), "x"), y(size_t{1}, "y");
  launch(early_warps_kernel, 1, 128, x.data(), y.data());
  REQUIRE(y[0] == 496);
}

// ---- votes, reductions, matches

struct Votes {
  unsigned ballot, any, all, sum, largest, smallest, equal;
};

__global__ void votes_kernel(unsigned mask, const unsigned* x, Votes* y) {
  const unsigned lane = threadIdx.x;
  if (!(mask >> lane & 1)) return;
  const unsigned value = x[lane];
  Votes own;
  own.ballot = __ballot_sync(mask, value > 4);
  own.any = static_cast<unsigned>(__any_sync(mask, value == 7));
  own.all = static_cast<unsigned>(__all_sync(mask, value < 100));
  own.sum = __reduce_add_sync(mask, value);
  own.largest = __reduce_max_sync(mask, value);
  own.smallest = __reduce_min_sync(mask, value);
  own.equal = __match_any_sync(mask, value);
  y[lane] = own;
}

TEST(votes_and_reductions) {
  std::vector<unsigned> values(32);
  for (unsigned i = 0; i < 32; ++i) values[i] = i * 7 % 11 + (i == 30) * 500;
  Array<unsigned> x(values, "x");
  for (const unsigned mask : {kFull, 0x0000ffffu, 0xf0f0f0f0u, 0x80000001u, 1u << 13}) {
    Array<Votes> y(std::vector<Votes>(32), "y", simt::Contents::in_out);
    launch(votes_kernel, 1, 32, mask, x.data(), y.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      Votes expected{0, 0, 1, 0, 0, ~0u, 0};
      for (unsigned other = 0; other < 32; ++other) {
        if (!(mask >> other & 1)) continue;
        const unsigned value = values[other];
        expected.ballot |= unsigned{value > 4} << other;
        expected.any |= value == 7;
        expected.all &= value < 100;
        expected.sum += value;
        expected.largest = std::max(expected.largest, value);
        expected.smallest = std::min(expected.smallest, value);
        expected.equal |= unsigned{value == values[lane]} << other;
      }
      REQUIRE(std::memcmp(&y[lane], &expected, sizeof expected) == 0);
    }
    y.publish();
  }
}

__global__ void barrier_votes_kernel(int* y) {
  const int thread = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(thread % 3 == 0);
  const int all = __syncthreads_and(thread < 70);
  const int none = __syncthreads_and(thread != 69);
  const int any = __syncthreads_or(thread == 69);
  const int no = __syncthreads_or(thread > 70);
  y[blockIdx.x * blockDim.x + threadIdx.x] =
      count * 10000 + all * 1000 + none * 100 + any * 10 + no;
}

TEST(barrier_votes) {
  Array<int> y(140, "y");
  launch(barrier_votes_kernel, 2, 70, y.data());
  for (size_t i = 0; i < 140; ++i) REQUIRE(y[i] == 241010);
  y.publish();
}

// ---- __syncwarp orders the lanes' accesses to shared memory

__global__ void syncwarp_kernel(int* y) {
  __shared__ int s[64];
  const unsigned thread = threadIdx.x, lane = thread % 32;
  s[thread] = static_cast<int>(thread);
  __syncwarp();
  int value = s[thread ^ 31];
  __syncwarp();
  if (lane < 8) {
    s[thread] = value * 2;
    __syncwarp(0xffu);
    value = s[thread ^ 7];
  }
  y[thread] = value;
}

TEST(syncwarp) {
  Array<int> y(64, "y");
  launch(syncwarp_kernel, 1, 64, y.data());
  for (int i = 0; i < 64; ++i) {
    const int expected = i % 32 < 8 ? ((i ^ 7) ^ 31) * 2 : i ^ 31;
    REQUIRE(y[static_cast<size_t>(i)] == expected);
  }
  y.publish();
}
