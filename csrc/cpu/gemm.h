// The blocked, packed matrix product under gemm, im2col, implicit GEMM, Winograd and FFT.
//
//   c[m][n] = sum over p of a[m][p] * b[p][n]
//
// Method        Goto & van de Geijn 2008, BLIS: panels of a (kRows high) and b (up to kVectors
//               vectors wide) are packed so that the micro-kernel streams both; its accumulators
//               stay in registers over a k block, the sums of a task in L2 over all of them.
// Partitioning  one task per block of rows and columns of c, which packs for itself what its caller
//               has not packed for all tasks.
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
  // Accumulators fill the register file: 24 of 32 (AVX-512), 12 of 16 (AVX2: beside a line and a
  // broadcast no register is free), 8 of 16 (baseline). Rows divide what channels come in.
  static constexpr int kRows = LAMINA_VECTOR_BYTES == 64 ? 8 : 4;
  static constexpr int kVectors = LAMINA_VECTOR_BYTES >= 32 ? 3 : 2;
  static constexpr int kCols = kVectors * kLanes<T>;
  // Columns behind a panel that its tile takes along, a vector of rows each: planes of 7 x 7 have
  // one. Only 32 registers have room.
  static constexpr int kBeyond = LAMINA_VECTOR_BYTES == 64 ? 1 : 0;
  static constexpr int64_t kBlockRows = 512;              // a task's part of c, and its panels of
  static constexpr int64_t kBlockCols = 768 / sizeof(T);  // b for one k block: together within L2
  static constexpr int64_t kBlockDepth = 256;
};

// Memory that a later panel is packed from: a cache line of each of its rows.
template <class T>
struct Ahead {
  const T* line = nullptr;  // of the first row
  int64_t step = 0;         // between rows
};

// c[kRows][Vectors * kLanes + Beyond], rows at c_step, = or += (add) a panel of a [depth][kRows]
// times a panel of b [depth][Vectors * kLanes] and the first columns of the next, [depth][kLanes].
// Fetches `ahead` into L2 meanwhile if asked to.
template <class T, int Vectors, bool Fetch, int Beyond = 0>
[[gnu::noinline]] static void gemm_micro(int64_t depth, const T* a, const T* b, T* c,
                                         int64_t c_step, bool add, Ahead<T> ahead) {
  constexpr int kRows = GemmTile<T>::kRows;
  typedef T Column __attribute__((vector_size(kRows * sizeof(T))));
  Vec<T> sum[kRows][Vectors] = {};
  Column column[Beyond > 0 ? Beyond : 1] = {};
  const T* beyond = b + Vectors * kLanes<T> * depth;
  for (int64_t p = 0; p < depth; ++p) {
    if constexpr (Fetch) __builtin_prefetch(ahead.line, 0, 2), ahead.line += ahead.step;
    Vec<T> line[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) line[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a[i] * line[j];
    if constexpr (Beyond > 0) {
      Column factor;
      __builtin_memcpy(&factor, a, sizeof factor);
      for (int j = 0; j < Beyond; ++j) column[j] += factor * beyond[j];
      beyond += kLanes<T>;
    }
    a += kRows, b += Vectors * kLanes<T>;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      T* place = c + i * c_step + j * kLanes<T>;
      store(place, add ? load(place) + sum[i][j] : sum[i][j]);
    }
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < Beyond; ++j) {
      T& place = c[i * c_step + Vectors * kLanes<T> + j];
      place = add ? place + column[j][i] : column[j][i];
    }
}

// gemm_micro for a panel of b that is `width` wide, a number of whole vectors.
template <class T>
LAMINA_INLINE void gemm_panels(int64_t depth, int64_t width, const T* a, const T* b, T* c,
                               int64_t c_step, bool add, Ahead<T> ahead = {}) {
  constexpr int kVectors = GemmTile<T>::kVectors;
  if (width == GemmTile<T>::kCols && ahead.line)
    gemm_micro<T, kVectors, true>(depth, a, b, c, c_step, add, ahead);
  else if (width == GemmTile<T>::kCols)
    gemm_micro<T, kVectors, false>(depth, a, b, c, c_step, add, ahead);
  else if (kVectors > 2 && width == 2 * kLanes<T>)
    gemm_micro<T, 2, false>(depth, a, b, c, c_step, add, ahead);
  else
    gemm_micro<T, 1, false>(depth, a, b, c, c_step, add, ahead);
}

template <class T>
LAMINA_INLINE int64_t whole_vectors(int64_t count) {
  return ceil_div(count, kLanes<T>) * kLanes<T>;
}

// The same for `cols` columns, panels of b one behind the other; ahead() for every panel.
template <class T, class Fetch>
LAMINA_INLINE void gemm_row(int64_t depth, int64_t cols, const T* a, const T* b, T* c,
                            int64_t c_step, bool add, const Fetch& ahead) {
  constexpr int kVectors = GemmTile<T>::kVectors, kBeyond = GemmTile<T>::kBeyond;
  constexpr int64_t kCols = GemmTile<T>::kCols;
  for (int64_t j = 0; j < cols; j += kCols, b += kCols * depth, c += kCols) {
    const Ahead<T> next = ahead();
    if (kBeyond > 0 && cols - j == kCols + kBeyond) {
      if (next.line)
        gemm_micro<T, kVectors, true, kBeyond>(depth, a, b, c, c_step, add, next);
      else
        gemm_micro<T, kVectors, false, kBeyond>(depth, a, b, c, c_step, add, next);
      return;
    }
    gemm_panels(depth, min_of(kCols, whole_vectors<T>(cols - j)), a, b, c, c_step, add, next);
  }
}

// Rows and columns of a task; few tasks are cut further.
template <class T>
struct GemmBlock {
  int64_t rows, cols;

  // Columns that are packed for all tasks are taken whole, so that rows are packed once.
  GemmBlock(int64_t batch, int64_t m, int64_t n, bool packed_columns) {
    using Tile = GemmTile<T>;
    constexpr int64_t kFewTasks = 16;
    const auto tasks = [&] { return batch * ceil_div(m, rows) * ceil_div(n, cols); };
    if (packed_columns) {
      constexpr int64_t kMost = 64;
      const int64_t share = ceil_div(m, ceil_div(kFewTasks, max_of<int64_t>(batch, 1)));
      rows = min_of(kMost, max_of<int64_t>(ceil_div(share, Tile::kRows), 1) * Tile::kRows);
      cols = max_of<int64_t>(ceil_div(n, Tile::kCols), 1) * Tile::kCols;
      return;
    }
    rows = min_of(Tile::kBlockRows, max_of<int64_t>(ceil_div(m, Tile::kRows), 1) * Tile::kRows);
    cols = rows > Tile::kBlockRows / 2 ? Tile::kBlockCols / 2 : Tile::kBlockCols;
    while (cols > Tile::kCols && tasks() < kFewTasks)
      cols = ceil_div(cols / 2, Tile::kCols) * Tile::kCols;
    while (rows > 2 * Tile::kRows && tasks() < kFewTasks)
      rows = ceil_div(rows / 2, Tile::kRows) * Tile::kRows;
  }
};

// Runs every block of `batch` products. The callers' functions see element coordinates; `panel` is
// memory that they may fill:
//   rows(batch, i, count, p, depth, panel)      -> a[i..][p..] as [depth][kRows]; with
//                                                  packed_columns panels of all rows of a task
//   columns(batch, j, count, p, depth, panels)  -> b[p..][j..] as panels [depth][kCols], the last
//                                                  one as many whole vectors wide as it needs
//   store(batch, i, rows, j, cols, sums, step)  takes c[i..][j..], rows `step` apart, one panel of
//                                               rows at a time, while its sums are in L1
//   ahead_of(batch, j, cols, p, line)           -> the line-th cache line of b[p..][j..] as it lies
//   in
//                                                  memory, if any: fetched during other products
// Rows and columns beyond `count` are zero.
template <class T>
struct NothingAhead {
  Ahead<T> operator()(int64_t, int64_t, int64_t, int64_t, int64_t) const { return {}; }
};
template <class T, class Rows, class Columns, class Store, class Fetch = NothingAhead<T>>
static void gemm_blocks(int64_t batch, int64_t m, int64_t n, int64_t k, const Rows& rows_of,
                        const Columns& columns_of, const Store& store_block,
                        const Fetch& ahead_of = {}, bool packed_columns = false) {
  using Tile = GemmTile<T>;
  const GemmBlock<T> block(batch, m, n, packed_columns);
  const int64_t blocks_m = ceil_div(m, block.rows), blocks_n = ceil_div(n, block.cols);
  const int64_t most = min_of(Tile::kBlockDepth, max_of<int64_t>(k, 1));
  parallel_for(batch * blocks_m * blocks_n, [&](int64_t task) {
    const int64_t index = task / (blocks_m * blocks_n);
    const int64_t i0 = task / blocks_n % blocks_m * block.rows, rows = min_of(block.rows, m - i0);
    const int64_t j0 = task % blocks_n * block.cols, cols = min_of(block.cols, n - j0);
    const int64_t step = whole_vectors<T>(cols);
    // The columns that this thread most likely packs next: of a later task.
    const int64_t next = task + num_threads(), next_j = next % blocks_n * block.cols;
    const bool kept = k > Tile::kBlockDepth;  // sums wait for the next k block
    Scratch<T> sums((kept ? ceil_div(rows, Tile::kRows) : 1) * Tile::kRows * step);
    const int64_t all_rows = ceil_div(rows, Tile::kRows) * Tile::kRows;
    Scratch<T> a_panels((packed_columns ? all_rows : Tile::kRows) * most);
    Scratch<T> b_panels(packed_columns ? 0 : step * most);
    for (int64_t p = 0; p == 0 || p < k; p += Tile::kBlockDepth) {  // k == 0: the sum is zero
      const int64_t depth = min_of(k - p, Tile::kBlockDepth);
      const T* b = columns_of(index, j0, cols, p, depth, b_panels.get());
      const T* a_all =
          packed_columns ? rows_of(index, i0, rows, p, depth, a_panels.get()) : nullptr;
      const bool last = p + depth >= k;
      int64_t line = 0;
      for (int64_t i = 0; i < rows; i += Tile::kRows) {
        const int64_t count = min_of<int64_t>(Tile::kRows, rows - i);
        const T* a =
            a_all ? a_all + i * depth : rows_of(index, i0 + i, count, p, depth, a_panels.get());
        T* c = &sums[kept ? i * step : 0];
        gemm_row(depth, cols, a, b, c, step, p > 0, [&] {
          return last ? ahead_of(next / (blocks_m * blocks_n), next_j,
                                 min_of(block.cols, n - next_j), 0, line++)
                      : ahead_of(index, j0, cols, p + depth, line++);
        });
        if (last) store_block(index, i0 + i, count, j0, cols, c, step);
      }
    }
  });
}

// panel[depth][Width], rows `step` apart (Width, if it is less than a vector), from a matrix whose
// element (line, p) lies at lines[line * line_step + p * p_step]; lines beyond `count` are zero.
template <int Width, class T>
static void pack_panel(const T* lines, int64_t line_step, int64_t p_step, int64_t count,
                       int64_t depth, T* panel, int64_t step) {
  if (line_step == 1 && count >= Width) {
    constexpr int64_t kAhead = 16;  // lines far apart that the hardware does not see come
    for (int64_t p = 0; p < depth; ++p) {
      __builtin_prefetch(lines + (p + kAhead) * p_step);
      __builtin_memcpy(panel + p * step, lines + p * p_step, sizeof(T) * Width);
    }
    return;
  }
  if (Width == kLanes<T> && line_step == 1) {
    for (int64_t p = 0; p < depth; ++p)
      store(panel + p * step, load_lanes(lines + p * p_step, 0, count));
    return;
  }
  int64_t done = 0;
  if (p_step == 1)  // lines are contiguous: a vector of each at a time is transposed in registers
    for (; done + kLanes<T> <= depth; done += kLanes<T>)
#pragma GCC unroll 8
      for (int first = 0; first < Width; first += kLanes<T>) {
        constexpr int kCount = Width < kLanes<T> ? Width : kLanes<T>;
        static_assert(Width % kCount == 0 && kLanes<T> % kCount == 0);
        Vec<T> block[kCount];
        for (int line = 0; line < kCount; ++line)
          block[line] =
              first + line < count ? load(lines + (first + line) * line_step + done) : Vec<T>{};
        transpose<T>(block);
        for (int i = 0; i < kCount; ++i)  // where the panel is narrower, several of its rows
          store(panel + (done + i * (kLanes<T> / kCount)) * step + first, block[i]);
      }
  for (int64_t p = done; p < depth; ++p)
    for (int64_t line = 0; line < Width; ++line)
      panel[p * step + line] = line < count ? lines[line * line_step + p * p_step] : T(0);
}

// The same for all columns of a task: panels [depth][kCols], the last one narrower.
template <class T>
static void pack_columns(const T* lines, int64_t line_step, int64_t p_step, int64_t count,
                         int64_t depth, T* panels) {
  constexpr int kCols = GemmTile<T>::kCols;
  for (int64_t first = 0; first < count; first += kCols) {
    const int64_t width = min_of<int64_t>(kCols, whole_vectors<T>(count - first));
    for (int64_t j = 0; j < width; j += kLanes<T>)
      pack_panel<kLanes<T>>(lines + (first + j) * line_step, line_step, p_step, count - first - j,
                            depth, panels + first * depth + j, width);
  }
}

template <class T>
void gemm(const ops::GemmArgs<T>& args);

LAMINA_CPU_NAMESPACE_END
