// gemm: c = f(alpha op(a) op(b) + beta c + bias + residual), row major, batched. See cpu/gemm.h for
// the method and cpu/gemm_split.h for that in bfloat16.
#include "cpu/gemm.h"

#include "cpu/gemm_skinny.h"
#include "cpu/gemm_split.h"
#include "ops/instantiate.h"
#include "shared/implicit_gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::GemmArgs;

// Words for all of a, split once for all tasks; 0 if that is too much.
template <class T>
static int64_t rows_memory(const GemmArgs<T>& args, int pieces) {
  constexpr int64_t kMostWords = int64_t{1} << 23;
  const int64_t words = args.batch * split_elements(args.m, args.k, pieces);
  return words <= kMostWords ? words : 0;
}

template <class T>
static void packed_gemm(const GemmArgs<T>& args, int pieces) {
  if (skinny_gemm(args)) return;
  using Tile = GemmTile<T>;
  const int64_t a_row = args.trans_a ? 1 : args.lda, a_col = args.trans_a ? args.lda : 1;
  const int64_t b_row = args.trans_b ? 1 : args.ldb, b_col = args.trans_b ? args.ldb : 1;
  const auto rows_of = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth,
                           T* panel) {
    const T* a = args.a + index * args.stride_a + i * a_row + p * a_col;
    pack_panel<Tile::kRows>(a, a_row, a_col, rows, depth, panel, Tile::kRows);
    return panel;
  };
  const auto columns_of = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth,
                              T* panels) {
    const T* b = args.b + index * args.stride_b + p * b_row + j * b_col;
    pack_columns(b, b_col, b_row, cols, depth, panels);
    return panels;
  };
  const auto store_block = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols,
                               const T* sums, int64_t step) {
    for (int64_t r = 0; r < rows; ++r, sums += step)
      for (int64_t q = 0; q < cols; q += kLanes<T>)
        store_sum(args, index, i + r, j + q, cols - q, load(sums + q));
  };
  if constexpr (sizeof(T) == sizeof(float))
    if (pieces > 0) {
      Scratch<uint32_t> rows(rows_memory(args, pieces));
      const auto row_lines = [&](int64_t index, int64_t i, int64_t, int64_t p, int64_t depth, T*) {
        const T* a = args.a + index * args.stride_a + i * a_row + p * a_col;
        return FactorLines<T>{a, args.lda, depth, args.trans_a};
      };
      const auto column_lines = [&](int64_t index, int64_t j, int64_t, int64_t p, int64_t depth,
                                    T*) {
        const T* b = args.b + index * args.stride_b + p * b_row + j * b_col;
        return FactorLines<T>{b, args.ldb, depth, !args.trans_b};
      };
      SplitShare share;
      if (rows_memory(args, pieces) > 0) share.rows.words = rows.get();
      if (args.packed) share.columns = {args.packed->data, false, args.packed->ready};
      split_blocks(pieces, args.batch, args.m, args.n, args.k, rows_of, columns_of, row_lines,
                   column_lines, store_block, share);
      if (args.packed) args.packed->ready = true;
      return;
    }
  if (!args.packed)
    return gemm_blocks<T>(args.batch, args.m, args.n, args.k, rows_of, columns_of, store_block);
  // All of op(b), block of depth by block of depth.
  const int64_t width = whole_vectors<T>(args.n), panels = ceil_div(args.n, Tile::kCols);
  const int64_t blocks = ceil_div(args.k, Tile::kBlockDepth);
  const auto place = [&](int64_t index, int64_t j, int64_t p, int64_t depth) {
    return args.packed->data + (index * args.k + p) * width + j * depth;
  };
  parallel_for(args.packed->ready ? 0 : args.batch * panels * blocks, [&](int64_t task) {
    const int64_t index = task / blocks / panels, j = task / blocks % panels * Tile::kCols;
    const int64_t p = task % blocks * Tile::kBlockDepth;
    const int64_t depth = min_of(Tile::kBlockDepth, args.k - p);
    columns_of(index, j, min_of<int64_t>(Tile::kCols, args.n - j), p, depth,
               place(index, j, p, depth));
  });
  args.packed->ready = true;
  gemm_blocks<T>(
      args.batch, args.m, args.n, args.k, rows_of,
      [&](int64_t index, int64_t j, int64_t, int64_t p, int64_t depth, T*) -> const T* {
        return place(index, j, p, depth);
      },
      store_block);
}

template <class T>
void gemm(const GemmArgs<T>& args) {
  packed_gemm(args, 0);
}
LAMINA_INSTANTIATE(gemm, GemmArgs)

template <class T>
void gemm_fprop_packed(const GemmArgs<T>& args) {
  if constexpr (sizeof(T) == sizeof(float))
    packed_gemm(args, ops::gemm_pieces(args));
  else
    packed_gemm(args, 0);
}
LAMINA_INSTANTIATE(gemm_fprop_packed, GemmArgs)

LAMINA_CPU_NAMESPACE_END
