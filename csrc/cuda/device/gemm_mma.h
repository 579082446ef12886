// The tensor-core engine of device/gemm_tile.h: float16 and bfloat16 with float32 sums, and float
// operands rounded to tf32 (11 bits, to nearest).
//
// Tile          kM x kN results a block, WARP_M x WARP_N a warp, by mma.sync m16n8k16, for tf32
//               m16n8k8. An operand keeps in shared memory the order it has in global memory, lines
//               in rows ([depth][line]) or depth in rows ([line][depth]). The instruction wants the
//               other order of lines in rows: ldmatrix transposes them, if 16-bit; floats are read
//               one by one. Rows are cut into chunks of sixteen bytes, permuted so that the eight
//               rows of a matrix, or the floats of a warp, fall on different banks.
// Numerics      products are exact; the hardware adds those of an instruction and the sum at once,
//               truncating below float32's last place.
#pragma once

#include "cuda/device/gemm_tile.h"

namespace lamina::cuda {

// Where an element of a tile lies in shared memory. The bits of line and depth go into the place by
// exclusive or and by addition only, so aligned blocks of 16 lines or depths are a fixed way apart.
template <class T, int LINES, int DEPTH, bool ALONG_LINES>
struct MmaLayout {
  static constexpr int kChunk = kWide<T>;
  static constexpr int kRound = 16 / static_cast<int>(sizeof(T));  // rows that differ, of 8 lines
  static_assert(DEPTH * sizeof(T) == 64 && LINES % 64 == 0);

  __host__ __device__ static constexpr int place(int line, int depth) {
    if (ALONG_LINES) return depth * LINES + (line ^ depth % kRound * 8);
    return line * DEPTH + (depth ^ line / 2 % 4 * kChunk);
  }
  // place(line + lines, depth + depths) from place(line, depth), if line / 2 % 4 and depth share no
  // bits with the steps; of lines in rows, for steps along the depth only.
  __host__ __device__ static constexpr int advanced(int place, int lines, int depths) {
    return ALONG_LINES ? (place ^ depths % kRound * 8) + depths * LINES
                       : (place ^ lines / 2 % 4 * kChunk ^ depths) + lines * DEPTH;
  }
  // place(line + lines, depth + depths) from place(line, depth): `lines` a multiple of 16, `depths`
  // of 16 or, for float, 8, both without bits of line and depth.
  __host__ __device__ static constexpr int moved(int place, int lines, int depths) {
    return ALONG_LINES ? (place ^ lines) + depths * LINES : (place ^ depths) + lines * DEPTH;
  }
};

template <class T, int M, int N, int WARP_M, int WARP_N, bool A_ALONG_LINES, bool B_ALONG_LINES>
struct MmaEngine {
  using Element = T;
  using Sum = float;
  static constexpr bool kTf32 = sizeof(T) == sizeof(float);
  static constexpr int kM = M, kN = N, kDepth = 64 / static_cast<int>(sizeof(T));
  static constexpr int kStep = kDepth / 2;  // of an instruction
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

  // Vectors along the depth, of which neighbouring lines take the same.
  template <int LINES>
  using GatherMap = TileMap<LINES, kDepth, kThreads, kWide<T>, false, 1>;

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
    using Layout = MmaLayout<T, Map::kLines, kDepth, Map::kAlongLines>;
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
    const int line_a = warp / kWarpsN * WARP_M, line_b = warp % kWarpsN * WARP_N;
    // This lane's row of the four 8 x 8 matrices that one ldmatrix takes: of a, lines first, then
    // depth; of b the other way round. Of floats in the other order, this lane's first element.
    int place_a, place_b;
    if constexpr (kTf32 && A_ALONG_LINES)
      place_a = LayoutA::place(line_a + lane / 4, lane % 4);
    else
      place_a = LayoutA::place(line_a + (A_ALONG_LINES ? lane / 8 % 2 * 8 : lane % 16),
                               lane / 16 * kChunk + (A_ALONG_LINES ? lane % 8 : 0));
    if constexpr (kTf32 && B_ALONG_LINES)
      place_b = LayoutB::place(line_b + lane / 4, lane % 4);
    else
      place_b = LayoutB::place(line_b + lane / 16 * 8 + (B_ALONG_LINES ? 0 : lane % 8),
                               B_ALONG_LINES ? lane % 16 : lane / 8 % 2 * kChunk);
#pragma unroll
    for (int p = 0; p < kDepth; p += kStep) {
      uint32_t left[kRows][4], right[kColumns][2];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        load_four<LayoutA, A_ALONG_LINES, M>(left[i], a, LayoutA::moved(place_a, i * 16, p), false);
#pragma unroll
      for (int j = 0; j < kColumns; j += 2) {
        uint32_t pair[4];
        load_four<LayoutB, B_ALONG_LINES, N>(pair, b, LayoutB::moved(place_b, j * 8, p), true);
        right[j][0] = pair[0], right[j][1] = pair[1];
        right[j + 1][0] = pair[2], right[j + 1][1] = pair[3];
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
          if constexpr (kTf32)
            simt::mma_m16n8k8_tf32(sum[i][j], left[i], right[j], sum[i][j]);
          else if constexpr (std::is_same_v<T, float16>)
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

 private:
  using LayoutA = MmaLayout<T, M, kDepth, A_ALONG_LINES>;
  using LayoutB = MmaLayout<T, N, kDepth, B_ALONG_LINES>;
  static constexpr int kChunk = kWide<T>;

  // Four 8 x 8 matrices, or 8 x 4 of float: 16 lines and two chunks of the depth from `place` on,
  // in the order of a (lines first) or of b (depth first).
  template <class Layout, bool ALONG_LINES, int LINES>
  __device__ __forceinline__ static void load_four(uint32_t (&r)[4], const T* tile, int place,
                                                   bool depth_first) {
    if constexpr (kTf32 && ALONG_LINES) {
      const T* const first = tile + place;
      const T* const second = tile + (place ^ 8);  // eight lines on
      r[0] = simt::to_tf32(first[0]);
      r[depth_first ? 2 : 1] = simt::to_tf32(second[0]);
      r[depth_first ? 1 : 2] = simt::to_tf32(first[4 * LINES]);
      r[3] = simt::to_tf32(second[4 * LINES]);
    } else if constexpr (ALONG_LINES) {
      simt::ldmatrix_x4_trans(r, tile + place);
    } else {
      simt::ldmatrix_x4(r, tile + place);
      if constexpr (kTf32)
#pragma unroll
        for (int e = 0; e < 4; ++e) r[e] = simt::to_tf32(__uint_as_float(r[e]));
    }
  }
};

}  // namespace lamina::cuda
