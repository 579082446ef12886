// gemm: c = f(alpha op(a) op(b) + beta c + bias + residual), row major, batched. See cpu/gemm.h for
// the method.
#include "cpu/gemm.h"

#include "cpu/gemm_skinny.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::GemmArgs;

template <class T>
void gemm(const GemmArgs<T>& args) {
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
  gemm_blocks<T>(args.batch, args.m, args.n, args.k, rows_of, columns_of, store_block);
}

template <class T>
void gemm_fprop_packed(const GemmArgs<T>& args) {
  gemm(args);
}

LAMINA_INSTANTIATE(gemm, GemmArgs)
LAMINA_INSTANTIATE(gemm_fprop_packed, GemmArgs)

LAMINA_CPU_NAMESPACE_END
