// Many products of small matrices at once: the middle of the Winograd and Fourier convolutions.
//
//   c[i][j] = sum over d of a[d][i] b[d][j]     (along_depth: of a[i][d] b[j][d])
//
// for every matrix of a batch. A complex product conj(a) b is two real ones of twice the depth: b
// holds planes re, im; a holds planes re, im, -im; c gets planes re, im.
//
// Method        a thread block owns an M x N tile of c, a thread TM x TN of it in registers. Slices
//               of kDepth go through shared memory, three deep by cp.async; operands along depth
//               are turned on the way, two deep through registers.
// Operands      every row starts on 16 bytes and is defined up to a multiple of 32 columns; rows
//               beyond the matrix are replaced by zeros.
// Partitioning  by output tile, and the depth in `splits` parts that write matrices of their own.
#pragma once

#include "cuda/device/launch.h"
#include "cuda/device/vector.h"

namespace lamina::cuda {

template <class A>
struct BatchedProduct {
  const A *a, *b;
  A* c;
  int m, n, depth;                       // of each real matrix
  int pitch_a, pitch_b, pitch_c;         // row lengths
  int64_t stride_a, stride_b, stride_c;  // from matrix to matrix
  int batch;
  int64_t plane_a = 0, plane_b = 0, plane_c = 0;  // from plane to plane of complex matrices
  int parts = 1;                                  // 2: complex
  int splits = 1, split_depth = 0;                // split_depth is a multiple of 32
  int64_t split_stride = 0;                       // of c
  bool accumulate = false;                        // c += instead of c =
};

template <class A_, int M_, int N_, int TM_, int TN_>
struct ProductTile {
  using A = A_;
  static constexpr int M = M_, N = N_, TM = TM_, TN = TN_;
  static constexpr int kDepth = 8;
  static constexpr int kThreads = M / TM * (N / TN);
  static constexpr int kWarpM = 4 * TM, kWarpN = 8 * TN;  // lanes of a warp: 4 x 8
  static constexpr int kWarpsN = N / kWarpN;
};

// Copies slice rows d0.. of src [depth][columns] to tile [kDepth][COLUMNS].
template <int DEPTH, int COLUMNS, int PITCH, int THREADS, class A>
__device__ __forceinline__ void copy_slice(A (&tile)[DEPTH][PITCH], const A* src, int pitch, int d0,
                                           int depth, int column0, int columns) {
  constexpr int kVectors = COLUMNS / kWide<A>;
#pragma unroll
  for (int i = 0; i < (DEPTH * kVectors + THREADS - 1) / THREADS; ++i) {
    const int index = i * THREADS + static_cast<int>(threadIdx.x);
    if (DEPTH * kVectors % THREADS && index >= DEPTH * kVectors) break;
    const int row = index / kVectors, column = index % kVectors * kWide<A>;
    const bool inside = d0 + row < depth && column0 + column < columns;
    const A* from = inside ? src + int64_t{d0 + row} * pitch + column0 + column : src;
    simt::cp_async<16>(&tile[row][column], from, inside ? 16 : 0);
  }
}

// A thread's share of a slice of src [rows][depth], on its way to tile [kDepth][ROWS].
template <class A, int DEPTH, int ROWS, int THREADS>
struct TurnedSlice {
  static constexpr int kVectors = DEPTH / kWide<A>;
  static constexpr int kMine = (ROWS * kVectors + THREADS - 1) / THREADS;
  Vector<A, kWide<A>> held[kMine];

  __device__ __forceinline__ void fetch(const A* src, int pitch, int d0, int row0, int rows) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int index = i * THREADS + static_cast<int>(threadIdx.x);
      const int row = index / kVectors, d = index % kVectors * kWide<A>;
      held[i] = {};
      if (row < ROWS && row0 + row < rows)
        held[i] = load<A, kWide<A>>(src + int64_t{row0 + row} * pitch + d0 + d);
    }
  }
  template <int PITCH>
  __device__ __forceinline__ void put(A (&tile)[DEPTH][PITCH]) const {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int index = i * THREADS + static_cast<int>(threadIdx.x);
      const int row = index / kVectors, d = index % kVectors * kWide<A>;
      if (ROWS * kVectors % THREADS && row >= ROWS) break;
#pragma unroll
      for (int j = 0; j < kWide<A>; ++j) tile[d + j][row] = held[i].element[j];
    }
  }
};

template <class Tile, bool ALONG_DEPTH>
__global__ void __launch_bounds__(Tile::kThreads, 2)
    batched_product_kernel(BatchedProduct<typename Tile::A> p, unsigned tiles_m, unsigned tiles_n) {
  using A = typename Tile::A;
  constexpr int kDepth = Tile::kDepth, V = kWide<A>, TM = Tile::TM, TN = Tile::TN;
  constexpr int kStages = ALONG_DEPTH ? 2 : 3;
  constexpr int kPad = ALONG_DEPTH ? V : 0;  // turned stores without bank conflicts
  __shared__ __align__(16) A tile_a[kStages][kDepth][Tile::M + kPad];
  __shared__ __align__(16) A tile_b[kStages][kDepth][Tile::N + kPad];

  // The tiles of a matrix column run together: they share b.
  unsigned index = blockIdx.x;
  const int m0 = static_cast<int>(index % tiles_m) * Tile::M;
  index /= tiles_m;
  const int part_m = static_cast<int>(index % static_cast<unsigned>(p.parts));
  index /= static_cast<unsigned>(p.parts);
  const int n0 = static_cast<int>(index % tiles_n) * Tile::N;
  index /= tiles_n;
  const int split = static_cast<int>(index % static_cast<unsigned>(p.splits));
  const int64_t matrix = index / static_cast<unsigned>(p.splits);
  // With part_d 0 come the planes re of b and re, -im of a; with 1 im of b and im, re of a.
  const A* const a_re = p.a + matrix * p.stride_a + (part_m ? 2 * p.plane_a : 0);
  const A* const a_im = p.a + matrix * p.stride_a + (part_m ? 0 : p.plane_a);
  const A* const b = p.b + matrix * p.stride_b;
  A* const c = p.c + matrix * p.stride_c + part_m * p.plane_c + split * p.split_stride;

  const int begin = split * p.split_depth;
  const int end = p.splits > 1 ? min(p.depth, begin + p.split_depth) : p.depth;
  const int slices = end > begin ? (end - begin + kDepth - 1) / kDepth : 0;
  const int total = p.parts * slices;

  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int row0 = warp / Tile::kWarpsN * Tile::kWarpM + lane / 8 * V;
  const int column0 = warp % Tile::kWarpsN * Tile::kWarpN + lane % 8 * V;
  A sum[TM][TN] = {};

  TurnedSlice<A, kDepth, Tile::M, Tile::kThreads> turned_a;
  TurnedSlice<A, kDepth, Tile::N, Tile::kThreads> turned_b;
  const auto fetch = [&](int slice) {
    const bool imaginary = slice >= slices;
    const int d0 = begin + (imaginary ? slice - slices : slice) * kDepth;
    const A* const from_a = imaginary ? a_im : a_re;
    const A* const from_b = imaginary ? b + p.plane_b : b;
    if constexpr (ALONG_DEPTH) {
      turned_a.fetch(from_a, p.pitch_a, d0, m0, p.m);
      turned_b.fetch(from_b, p.pitch_b, d0, n0, p.n);
    } else {
      if (slice < total) {
        copy_slice<kDepth, Tile::M, Tile::M, Tile::kThreads>(tile_a[slice % kStages], from_a,
                                                             p.pitch_a, d0, end, m0, p.m);
        copy_slice<kDepth, Tile::N, Tile::N, Tile::kThreads>(tile_b[slice % kStages], from_b,
                                                             p.pitch_b, d0, end, n0, p.n);
      }
      simt::cp_async_commit();  // also an empty group: the wait counts groups
    }
  };

  if constexpr (ALONG_DEPTH) {
    if (total) {
      fetch(0);
      turned_a.put(tile_a[0]), turned_b.put(tile_b[0]);
    }
  } else {
    fetch(0), fetch(1);
  }
  for (int slice = 0; slice < total; ++slice) {
    if constexpr (!ALONG_DEPTH) simt::cp_async_wait<1>();
    __syncthreads();  // this slice has landed; everybody has left the one that is overwritten next
    if constexpr (ALONG_DEPTH) {
      if (slice + 1 < total) fetch(slice + 1);
    } else {
      fetch(slice + 2);
    }
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      A left[TM], right[TN];
#pragma unroll
      for (int i = 0; i < TM; i += V) {
        const auto vector = load<A, V>(&tile_a[slice % kStages][d][row0 + i * 4]);
#pragma unroll
        for (int l = 0; l < V; ++l) left[i + l] = vector.element[l];
      }
#pragma unroll
      for (int j = 0; j < TN; j += V) {
        const auto vector = load<A, V>(&tile_b[slice % kStages][d][column0 + j * 8]);
#pragma unroll
        for (int l = 0; l < V; ++l) right[j + l] = vector.element[l];
      }
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j) sum[i][j] = fma(left[i], right[j], sum[i][j]);
    }
    if constexpr (ALONG_DEPTH)
      if (slice + 1 < total)
        turned_a.put(tile_a[(slice + 1) % kStages]), turned_b.put(tile_b[(slice + 1) % kStages]);
  }

#pragma unroll
  for (int i = 0; i < TM; ++i) {
    const int row = m0 + row0 + i / V * V * 4 + i % V;
    if (row >= p.m) continue;
#pragma unroll
    for (int j = 0; j < TN; j += V) {
      const int column = n0 + column0 + j * 8;
      if (column >= p.n) continue;
      A* const place = c + int64_t{row} * p.pitch_c + column;
      Vector<A, V> vector;
#pragma unroll
      for (int l = 0; l < V; ++l) vector.element[l] = sum[i][j + l];
      if (p.accumulate) {
        const auto before = load<A, V>(place);
#pragma unroll
        for (int l = 0; l < V; ++l) vector.element[l] += before.element[l];
      }
      store<A, V>(place, vector);
    }
  }
}

template <class Tile, bool ALONG_DEPTH>
void launch_product(const BatchedProduct<typename Tile::A>& p) {
  const int64_t tiles_m = ceil_div(p.m, Tile::M), tiles_n = ceil_div(p.n, Tile::N);
  launch(batched_product_kernel<Tile, ALONG_DEPTH>,
         grid_size(tiles_m * tiles_n * p.parts * p.splits * p.batch), Tile::kThreads, 0, p,
         static_cast<unsigned>(tiles_m), static_cast<unsigned>(tiles_n));
}

// Elements that tiles of this size compute, weighted by how slow small tiles are.
constexpr int64_t tiled_work(int64_t m, int64_t n, int64_t tile, int64_t percent) {
  return ceil_div(m, tile) * ceil_div(n, tile) * tile * tile * percent;
}

// Chooses the tile by the sizes alone.
template <bool ALONG_DEPTH, class A>
void run_batched_product(const BatchedProduct<A>& p) {
  const int64_t small = tiled_work(p.m, p.n, 32, 180), middle = tiled_work(p.m, p.n, 64, 125);
  if constexpr (sizeof(A) == sizeof(double)) {
    small < middle ? launch_product<ProductTile<A, 32, 32, 4, 4>, ALONG_DEPTH>(p)
                   : launch_product<ProductTile<A, 64, 64, 4, 4>, ALONG_DEPTH>(p);
  } else {
    const int64_t large = tiled_work(p.m, p.n, 128, 100);
    if (large <= middle && large <= small)
      launch_product<ProductTile<A, 128, 128, 8, 8>, ALONG_DEPTH>(p);
    else if (middle <= small)
      launch_product<ProductTile<A, 64, 64, 4, 4>, ALONG_DEPTH>(p);
    else
      launch_product<ProductTile<A, 32, 32, 4, 4>, ALONG_DEPTH>(p);
  }
}

}  // namespace lamina::cuda
