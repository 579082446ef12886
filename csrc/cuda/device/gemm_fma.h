// The multiply-add engine of device/gemm_tile.h: float and double on the CUDA cores.
//
// Tile          kM x kN results a block; TM x TN a thread, in groups of sixteen bytes; a warp is
//               4 x 8 threads. Both operands lie in shared memory with their lines in a row, padded
//               by sixteen bytes: every access is free of bank conflicts.
#pragma once

#include "cuda/device/gemm_tile.h"

namespace lamina::cuda {

template <class T, int M, int N, int DEPTH, int TM, int TN>
struct FmaEngine {
  using Element = T;
  using Sum = T;
  static constexpr int kM = M, kN = N, kDepth = DEPTH;
  static constexpr int kGroup = kWide<T>;
  static constexpr int kWarpM = 4 * TM, kWarpN = 8 * TN, kWarpsN = N / kWarpN;
  static constexpr int kThreads = M / kWarpM * kWarpsN * 32;
  static constexpr int kPitchA = M + kGroup, kPitchB = N + kGroup;
  static constexpr int kElementsA = DEPTH * kPitchA, kElementsB = DEPTH * kPitchB;
  static constexpr int kPasses = TM, kStageRows = M / kWarpM * 4, kPitch = N;
  static constexpr int kCopyStages = 2;
  static_assert(TM % kGroup == 0 && TN % kGroup == 0 && M % kWarpM == 0 && N % kWarpN == 0);

  // Vectors along the depth are scattered over its rows: a warp takes eight elements of a line.
  template <int LINES, int V, bool ALONG_LINES>
  using Map = TileMap<LINES, DEPTH, kThreads, V, ALONG_LINES, 8 / V>;

  T sum[TM][TN];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < TM; ++i)
#pragma unroll
      for (int j = 0; j < TN; ++j) sum[i][j] = T(0);
  }

  template <class Map>
  static constexpr bool kKeepsVectors = Map::kAlongLines;
  // Where this thread's vector i begins in a tile.
  template <class Map>
  __device__ __forceinline__ static int place(int i) {
    constexpr int kPitchOfTile = Map::kLines + kGroup;
    return Map::depth(threadIdx.x) * kPitchOfTile + Map::line(threadIdx.x) +
           Map::depth_step(i) * kPitchOfTile + Map::line_step(i);
  }
  template <class Map>
  __device__ __forceinline__ static void put(T* tile,
                                             const Vector<T, Map::kVector> (&values)[Map::kCount]) {
#pragma unroll
    for (int i = 0; i < Map::kCount; ++i) {
      T* const at = tile + place<Map>(i);
      if constexpr (Map::kAlongLines) {
        store<T, Map::kVector>(at, values[i]);
      } else {
#pragma unroll
        for (int e = 0; e < Map::kVector; ++e)
          at[e * (Map::kLines + kGroup)] = values[i].element[e];
      }
    }
  }

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
    a += first_row(), b += first_column();
#pragma unroll
    for (int p = 0; p < DEPTH; ++p) {
      Vector<T, kGroup> left[TM / kGroup], right[TN / kGroup];
#pragma unroll
      for (int g = 0; g < TM / kGroup; ++g)
        left[g] = load<T, kGroup>(a + p * kPitchA + g * 4 * kGroup);
#pragma unroll
      for (int g = 0; g < TN / kGroup; ++g)
        right[g] = load<T, kGroup>(b + p * kPitchB + g * 8 * kGroup);
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j)
          sum[i][j] = fma(left[i / kGroup].element[i % kGroup],
                          right[j / kGroup].element[j % kGroup], sum[i][j]);
    }
  }

  // Row `pass` of every thread: staged row s is that of the s-th line of threads.
  __device__ __forceinline__ void stage(int pass, T* target) const {
    const unsigned t = threadIdx.x;
    target += static_cast<int>(t / 32 / kWarpsN * 4 + t % 32 / 8) * kPitch + first_column();
#pragma unroll
    for (int g = 0; g < TN / kGroup; ++g) {
      Vector<T, kGroup> out;
#pragma unroll
      for (int e = 0; e < kGroup; ++e) out.element[e] = sum[pass][g * kGroup + e];
      store<T, kGroup>(target + g * 8 * kGroup, out);
    }
  }
  __host__ __device__ static constexpr int staged_row(int pass, int row) {
    return row / 4 * kWarpM + pass / kGroup * 4 * kGroup + row % 4 * kGroup + pass % kGroup;
  }

 private:
  // Of this thread within the tile.
  __device__ __forceinline__ static int first_row() {
    const unsigned t = threadIdx.x;
    return static_cast<int>(t / 32 / kWarpsN * kWarpM + t % 32 / 8 * kGroup);
  }
  __device__ __forceinline__ static int first_column() {
    const unsigned t = threadIdx.x;
    return static_cast<int>(t / 32 % kWarpsN * kWarpN + t % 8 * kGroup);
  }
};

}  // namespace lamina::cuda
