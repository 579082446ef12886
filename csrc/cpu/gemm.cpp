// gemm: c = f(alpha op(a) op(b) + beta c + bias + residual), row major, batched. See cpu/gemm.h for
// the method.
#include "cpu/gemm.h"

#include "cpu/activate.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::GemmArgs;

// Few rows of a, rows of b stored whole: every row of b is read once, and nothing is packed.
inline constexpr int64_t kFewRows = 4;

template <class T>
static bool is_skinny(const GemmArgs<T>& args) {
  return args.m <= kFewRows && args.trans_b && !args.trans_a;
}

// What is stored at c[place..place + count) for the sum of product, bias and c before.
template <class T>
LAMINA_INLINE Vec<T> finished(const GemmArgs<T>& args, int64_t place, int64_t count, Vec<T> sum) {
  if (args.epilogue.residual) sum += load_first(args.epilogue.residual + place, count);
  return activate(args.epilogue, sum);
}

// c[0..Rows)[j] for all j, as dot products; 2 * kLanes running sums each.
template <int Rows, class T>
static void skinny_product(const GemmArgs<T>& args, int64_t index) {
  const T *a = args.a + index * args.stride_a, *b = args.b + index * args.stride_b;
  T* c = args.c + index * args.stride_c;
  const int64_t grain = max_of<int64_t>((1 << 16) / max_of<int64_t>(args.k, 1), 1);
  parallel_ranges(args.n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      Vec<T> sum[Rows][2] = {};
      const T* row = b + j * args.ldb;
      int64_t p = 0;
      for (; p + 2 * kLanes<T> <= args.k; p += 2 * kLanes<T>)
        for (int half = 0; half < 2; ++half) {
          const Vec<T> factor = load(row + p + half * kLanes<T>);
#pragma GCC unroll 4
          for (int i = 0; i < Rows; ++i)
            sum[i][half] += factor * load(a + i * args.lda + p + half * kLanes<T>);
        }
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) {
        T total = sum_lanes<T>(sum[i][0] + sum[i][1]);
        for (int64_t q = p; q < args.k; ++q) total += a[i * args.lda + q] * row[q];
        T& place = c[i * args.ldc + j];
        T before = args.beta == T(0) ? T(0) : args.beta * place;
        before += (args.bias_m ? args.bias_m[i] : T(0)) + (args.bias_n ? args.bias_n[j] : T(0));
        place = before + args.alpha * total;
      }
    }
    if (args.epilogue.empty()) return;
    for (int i = 0; i < Rows; ++i)
      for (int64_t j = begin; j < end; j += kLanes<T>) {
        const int64_t place = index * args.stride_c + i * args.ldc + j;
        const Vec<T> sum = load_first(args.c + place, end - j);
        store_first(args.c + place, end - j, finished(args, place, end - j, sum));
      }
  });
}

template <class T>
static void skinny_gemm(const GemmArgs<T>& args) {
  for (int64_t index = 0; index < args.batch; ++index) switch (args.m) {
      case 1:
        skinny_product<1>(args, index);
        break;
      case 2:
        skinny_product<2>(args, index);
        break;
      case 3:
        skinny_product<3>(args, index);
        break;
      case 4:
        skinny_product<4>(args, index);
        break;
    }
}

template <class T>
void gemm(const GemmArgs<T>& args) {
  if (is_skinny(args)) return skinny_gemm(args);
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
    for (int64_t r = 0; r < rows; ++r, sums += step) {
      const int64_t place = index * args.stride_c + (i + r) * args.ldc + j;
      T* c = args.c + place;
      const T row_bias = args.bias_m ? args.bias_m[i + r] : T(0);
      for (int64_t q = 0; q < cols; q += kLanes<T>) {
        const int64_t some = cols - q;
        Vec<T> before = broadcast(row_bias);
        if (args.bias_n) before += load_first(args.bias_n + j + q, some);
        if (args.beta != T(0)) before += args.beta * load_first(c + q, some);
        store_first(c + q, some,
                    finished(args, place + q, some, before + args.alpha * load(sums + q)));
      }
    }
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
