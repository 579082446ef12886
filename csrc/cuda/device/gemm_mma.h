// The tensor-core engine of device/gemm_tile.h: float16 and bfloat16 with float32 sums.
//
// Tile          kM x kN results a block, WARP_M x WARP_N a warp, by mma.sync m16n8k16. An operand
//               keeps in shared memory the order it has in global memory, lines in rows
//               ([depth][line]) or depth in rows ([line][depth]), and ldmatrix transposes where the
//               instruction wants the other. Rows are cut into chunks of sixteen bytes, permuted so
//               that the eight rows of a matrix fall on different banks.
// Numerics      products are exact; the hardware adds sixteen of them and the sum at once,
//               truncating below float32's last place.
#pragma once

#include "cuda/device/gemm_tile.h"

namespace lamina::cuda {

// Where an element of a tile lies in shared memory. The bits of line and depth go into the place by
// exclusive or and by addition only, so aligned blocks of 16 lines or depths are a fixed way apart.
template <int LINES, int DEPTH, bool ALONG_LINES>
struct MmaLayout {
  static constexpr int kChunk = 8;  // elements of sixteen bytes
  static_assert(DEPTH == 32 && LINES % 64 == 0);

  __host__ __device__ static constexpr int place(int line, int depth) {
    if (ALONG_LINES) return depth * LINES + (line / kChunk ^ depth % 8) * kChunk + line % kChunk;
    return line * DEPTH + (depth / kChunk ^ line / 2 % 4) * kChunk + depth % kChunk;
  }
  // place(line + lines, depth + depths) from place(line, depth) for steps along the rows' other
  // direction, if line / 2 % 4 or depth % 8 shares no bits with them.
  __host__ __device__ static constexpr int advanced(int place, int lines, int depths) {
    return ALONG_LINES ? (place ^ depths % 8 * kChunk) + depths * LINES
                       : (place ^ lines / 2 % 4 * kChunk) + lines * DEPTH;
  }
  // place(line + lines, depth + depths) from place(line, depth), all but `depth % 16` and
  // `line % 16` multiples of 16, and `lines` without bits of `line`.
  __host__ __device__ static constexpr int moved(int place, int lines, int depths) {
    return ALONG_LINES ? (place ^ lines) + depths * LINES : (place ^ depths) + lines * DEPTH;
  }
};

template <class T, int M, int N, int WARP_M, int WARP_N, bool A_ALONG_LINES, bool B_ALONG_LINES>
struct MmaEngine {
  using Element = T;
  using Sum = float;
  static constexpr int kM = M, kN = N, kDepth = 32;
  static constexpr int kWarpsN = N / WARP_N, kThreads = M / WARP_M * kWarpsN * 32;
  static constexpr int kElementsA = M * kDepth, kElementsB = N * kDepth;
  static constexpr int kRows = WARP_M / 16, kColumns = WARP_N / 8;
  static constexpr int kPasses = 2 * kRows, kStageRows = M / WARP_M * 8;
  static constexpr int kPitch = N + 8;   // four rows of eight floats fall on different banks
  static constexpr int kCopyStages = 3;  // of 16 KiB for tiles of 128 x 128
  static_assert(WARP_M % 16 == 0 && WARP_N % 16 == 0);

  // Vectors along the depth keep a warp on whole lines.
  template <int LINES, int V, bool ALONG_LINES>
  using Map = TileMap<LINES, kDepth, kThreads, V, ALONG_LINES, kDepth / V>;

  float sum[kRows][kColumns][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
  }

  template <class Map>
  static constexpr bool kKeepsVectors = true;
  // Where this thread's vector i begins in a tile.
  template <class Map>
  __device__ __forceinline__ static int place(int i) {
    using Layout = MmaLayout<Map::kLines, kDepth, Map::kAlongLines>;
    const int first = Layout::place(Map::line(threadIdx.x), Map::depth(threadIdx.x));
    return Layout::advanced(first, Map::line_step(i), Map::depth_step(i));
  }
  template <class Map>
  __device__ __forceinline__ static void put(T* tile,
                                             const Vector<T, Map::kVector> (&values)[Map::kCount]) {
#pragma unroll
    for (int i = 0; i < Map::kCount; ++i) store<T, Map::kVector>(tile + place<Map>(i), values[i]);
  }

  __device__ __forceinline__ void multiply(const T* a, const T* b) {
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    using LayoutA = MmaLayout<M, kDepth, A_ALONG_LINES>;
    using LayoutB = MmaLayout<N, kDepth, B_ALONG_LINES>;
    // This lane's row of the four 8 x 8 matrices that one ldmatrix takes: of a, lines first, then
    // depth; of b the other way round.
    const int place_a =
        LayoutA::place(warp / kWarpsN * WARP_M + (A_ALONG_LINES ? lane / 8 % 2 * 8 : lane % 16),
                       lane / 16 * 8 + (A_ALONG_LINES ? lane % 8 : 0));
    const int place_b =
        LayoutB::place(warp % kWarpsN * WARP_N + lane / 16 * 8 + (B_ALONG_LINES ? 0 : lane % 8),
                       B_ALONG_LINES ? lane % 16 : lane / 8 % 2 * 8);
#pragma unroll
    for (int p = 0; p < kDepth; p += 16) {
      uint32_t left[kRows][4], right[kColumns][2];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const T* const at = a + LayoutA::moved(place_a, i * 16, p);
        if constexpr (A_ALONG_LINES)
          simt::ldmatrix_x4_trans(left[i], at);
        else
          simt::ldmatrix_x4(left[i], at);
      }
#pragma unroll
      for (int j = 0; j < kColumns; j += 2) {
        const T* const at = b + LayoutB::moved(place_b, j * 8, p);
        uint32_t pair[4];
        if constexpr (B_ALONG_LINES)
          simt::ldmatrix_x4_trans(pair, at);
        else
          simt::ldmatrix_x4(pair, at);
        right[j][0] = pair[0], right[j][1] = pair[1];
        right[j + 1][0] = pair[2], right[j + 1][1] = pair[3];
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
          if constexpr (std::is_same_v<T, float16>)
            simt::mma_m16n8k16_f16(sum[i][j], left[i], right[j], sum[i][j]);
          else
            simt::mma_m16n8k16_bf16(sum[i][j], left[i], right[j], sum[i][j]);
    }
  }

  // Half a row of the warps' 16 x 8 blocks a pass: staged row s is row s % 8 of warp row s / 8.
  __device__ __forceinline__ void stage(int pass, float* target) const {
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    target += (warp / kWarpsN * 8 + lane / 4) * kPitch + warp % kWarpsN * WARP_N + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      Vector<float, 2> out;
      out.element[0] = sum[pass / 2][j][pass % 2 * 2];
      out.element[1] = sum[pass / 2][j][pass % 2 * 2 + 1];
      store<float, 2>(target + j * 8, out);
    }
  }
  __host__ __device__ static constexpr int staged_row(int pass, int row) {
    return row / 8 * WARP_M + pass / 2 * 16 + pass % 2 * 8 + row % 8;
  }
};

}  // namespace lamina::cuda
