// The blocked, packed matrix product under gemm, im2col and implicit GEMM.
//
//   c[m][n] = sum over p of a[m][p] * b[p][n]
//
// Method        Goto & van de Geijn 2008, BLIS: panels of a (kRows high) and b (kVectors vectors
//               wide) are packed so that the micro-kernel streams both; its kRows x kVectors
//               accumulators stay in registers over a k block.
// Partitioning  one task per block of kBlockRows x kBlockCols of c, which packs for itself.
// Numerics      k in blocks of kBlockDepth, in order: the same bits for any number of threads.
//               Panels are padded with zeros; padded results are never stored.
#pragma once

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
struct GemmTile {
  // Accumulators fill the register file: 24 of 32 (AVX-512), 12 of 16 (AVX2), 8 of 16 (baseline).
  static constexpr int kRows = LAMINA_VECTOR_BYTES == 64 ? 8 : LAMINA_VECTOR_BYTES == 32 ? 6 : 4;
  static constexpr int kVectors = LAMINA_VECTOR_BYTES == 64 ? 3 : 2;
  static constexpr int kCols = kVectors * kLanes<T>;
  static constexpr int64_t kBlockRows = 12 * kRows;
  static constexpr int64_t kBlockCols = 8 * kCols;
  static constexpr int64_t kBlockDepth = 256;  // packed a and b together stay within L2
};

// c[kRows][Vectors * kLanes], rows at c_step, = or += (add) a panel of a [depth][kRows] times a
// panel of b [depth][Vectors * kLanes].
template <class T, int Vectors>
[[gnu::noinline]] static void gemm_micro(int64_t depth, const T* a, const T* b, T* c,
                                         int64_t c_step, bool add) {
  constexpr int kRows = GemmTile<T>::kRows;
  Vec<T> sum[kRows][Vectors] = {};
  for (int64_t p = 0; p < depth; ++p, a += kRows, b += Vectors * kLanes<T>) {
    Vec<T> line[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) line[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a[i] * line[j];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      T* place = c + i * c_step + j * kLanes<T>;
      store(place, add ? load(place) + sum[i][j] : sum[i][j]);
    }
}

// Runs every block of `batch` products. The callers' functions see element coordinates:
//   pack_a(batch, i, rows, p, depth, panel)  panel[depth][kRows] = a[i..][p..], zero padded
//   pack_b(batch, j, cols, p, depth, panel)  panel[depth][kCols] = b[p..][j..], zero padded
//   write(batch, i, rows, j, cols, tile, p)  adds tile[kRows][kCols] to c; p == 0: the first part
template <class T, class PackA, class PackB, class Write>
static void gemm_blocks(int64_t batch, int64_t m, int64_t n, int64_t k, const PackA& pack_a,
                        const PackB& pack_b, const Write& write) {
  using Tile = GemmTile<T>;
  const int64_t blocks_m = ceil_div(m, Tile::kBlockRows), blocks_n = ceil_div(n, Tile::kBlockCols);
  parallel_for(batch * blocks_m * blocks_n, [&](int64_t task) {
    const int64_t index = task / (blocks_m * blocks_n);
    const int64_t i0 = task / blocks_n % blocks_m * Tile::kBlockRows;
    const int64_t j0 = task % blocks_n * Tile::kBlockCols;
    const int64_t i1 = min_of(m, i0 + Tile::kBlockRows), j1 = min_of(n, j0 + Tile::kBlockCols);
    Scratch<T> a(Tile::kBlockRows * Tile::kBlockDepth), b(Tile::kBlockCols * Tile::kBlockDepth);
    alignas(64) T tile[Tile::kRows * Tile::kCols];
    // k == 0 still writes: the empty sum is zero.
    for (int64_t p = 0; p == 0 || p < k; p += Tile::kBlockDepth) {
      const int64_t depth = min_of(k - p, Tile::kBlockDepth);
      for (int64_t i = i0; i < i1; i += Tile::kRows)
        pack_a(index, i, min_of<int64_t>(Tile::kRows, i1 - i), p, depth, &a[(i - i0) * depth]);
      for (int64_t j = j0; j < j1; j += Tile::kCols)
        pack_b(index, j, min_of<int64_t>(Tile::kCols, j1 - j), p, depth, &b[(j - j0) * depth]);
      for (int64_t j = j0; j < j1; j += Tile::kCols)
        for (int64_t i = i0; i < i1; i += Tile::kRows) {
          gemm_micro<T, Tile::kVectors>(depth, &a[(i - i0) * depth], &b[(j - j0) * depth], tile,
                                        Tile::kCols, false);
          write(index, i, min_of<int64_t>(Tile::kRows, i1 - i), j,
                min_of<int64_t>(Tile::kCols, j1 - j), tile, p);
        }
    }
  });
}

// panel[depth][Width] from a matrix whose element (line, p) lies at lines[line * line_step + p *
// p_step]; lines beyond `count` are zero.
template <int Width, class T>
static void pack_panel(const T* lines, int64_t line_step, int64_t p_step, int64_t count,
                       int64_t depth, T* panel) {
  if (line_step == 1 && count == Width) {
    for (int64_t p = 0; p < depth; ++p)
      __builtin_memcpy(panel + p * Width, lines + p * p_step, sizeof(T) * Width);
    return;
  }
  int64_t done = 0;
  if (p_step == 1)  // lines are contiguous: squares of a vector's side are transposed in registers
    for (; done + kLanes<T> <= depth; done += kLanes<T>)
#pragma GCC unroll 8
      for (int first = 0; first < Width; first += kLanes<T>) {
        constexpr int kSide = kLanes<T>;
        Vec<T> square[kSide];
        for (int line = 0; line < kSide; ++line)
          square[line] =
              first + line < count ? load(lines + (first + line) * line_step + done) : Vec<T>{};
        transpose<T>(square);
        const int wide = Width - first < kSide ? Width - first : kSide;
        for (int p = 0; p < kSide; ++p)
          __builtin_memcpy(panel + (done + p) * Width + first, &square[p], sizeof(T) * wide);
      }
  for (int64_t p = done; p < depth; ++p)
    for (int64_t line = 0; line < Width; ++line)
      panel[p * Width + line] = line < count ? lines[line * line_step + p * p_step] : T(0);
}

template <class T>
void gemm(const ops::GemmArgs<T>& args);

LAMINA_CPU_NAMESPACE_END
