// gemm: c = alpha op(a) op(b) + beta c (+ bias), row major, batched. See cpu/gemm.h for the method.
#include "cpu/gemm.h"

#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::GemmArgs;

template <class T>
void gemm(const GemmArgs<T>& args) {
  using Tile = GemmTile<T>;
  const int64_t a_row = args.trans_a ? 1 : args.lda, a_col = args.trans_a ? args.lda : 1;
  const int64_t b_row = args.trans_b ? 1 : args.ldb, b_col = args.trans_b ? args.ldb : 1;
  auto pack_a = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth, T* panel) {
    const T* a = args.a + index * args.stride_a + i * a_row + p * a_col;
    pack_panel(a, a_row, a_col, rows, Tile::kRows, depth, panel);
  };
  auto pack_b = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth, T* panel) {
    const T* b = args.b + index * args.stride_b + p * b_row + j * b_col;
    pack_panel(b, b_col, b_row, cols, Tile::kCols, depth, panel);
  };
  auto write = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols, const T* tile,
                   int64_t p) {
    for (int64_t r = 0; r < rows; ++r) {
      T* c = args.c + index * args.stride_c + (i + r) * args.ldc + j;
      const T* sums = tile + r * Tile::kCols;
      const T row_bias = args.bias_m ? args.bias_m[i + r] : T(0);
      for (int64_t s = 0; s < cols; ++s) {
        T before = c[s];
        if (p == 0) {
          before = args.beta == T(0) ? T(0) : args.beta * before;
          before += row_bias + (args.bias_n ? args.bias_n[j + s] : T(0));
        }
        c[s] = before + args.alpha * sums[s];
      }
    }
  };
  gemm_blocks<T>(args.batch, args.m, args.n, args.k, pack_a, pack_b, write);
}

template <class T>
void gemm_fprop_packed(const GemmArgs<T>& args) {
  gemm(args);
}

LAMINA_INSTANTIATE(gemm, GemmArgs)
LAMINA_INSTANTIATE(gemm_fprop_packed, GemmArgs)

LAMINA_CPU_NAMESPACE_END
