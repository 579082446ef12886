// Products of one large matrix with few rows or columns of another, as fully connected layers of
// small batches are: nothing is packed.
//
// Method        few rows of a: every element of b is read once. Little depth: c is a sum of few
//               outer products and every element of it is written once.
// Partitioning  ranges of columns (of rows, for outer products) of about a quarter of L1 or more.
// Numerics      dot products in 2 * kLanes running sums; otherwise the depth in order.
// Floor         the large matrix over the memory's bandwidth; what does not fit a cache is not read
//               before it is written.
#pragma once

#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

// f(alpha * sum + beta * c + biases + residual) to c[i][j..j + count) of product `index`.
template <class T>
LAMINA_INLINE void store_sum(const ops::GemmArgs<T>& args, int64_t index, int64_t i, int64_t j,
                             int64_t count, Vec<T> sum) {
  const int64_t place = index * args.stride_c + i * args.ldc + j;
  Vec<T> before = broadcast(args.bias_m ? args.bias_m[i] : T(0));
  if (args.bias_n) before += load_first(args.bias_n + j, count);
  if (args.beta != T(0)) before += args.beta * load_first(args.c + place, count);
  sum = before + args.alpha * sum;
  if (args.epilogue.residual) sum += load_first(args.epilogue.residual + place, count);
  store_first(args.c + place, count, activate(args.epilogue, sum));
}

// Dot products of more rows want for registers: packing is faster.
inline constexpr int64_t kFewRows = 8, kLittleDepth = 8;

// Whether store_sum would store the sum alone.
template <class T>
static bool is_plain(const ops::GemmArgs<T>& args) {
  return !args.bias_m && !args.bias_n && args.alpha == T(1) && args.beta == T(0) &&
         args.epilogue.empty();
}

// totals[i] = a[i] . row, both of k elements.
template <int Rows, class T>
LAMINA_INLINE void dots_with(const T* a, int64_t lda, const T* row, int64_t k, T* totals) {
  Vec<T> sum[Rows][2] = {};
  int64_t p = 0;
  for (; p + 2 * kLanes<T> <= k; p += 2 * kLanes<T>)
    for (int half = 0; half < 2; ++half) {
      const Vec<T> factor = load(row + p + half * kLanes<T>);
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i)
        sum[i][half] += factor * load(a + i * lda + p + half * kLanes<T>);
    }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    T total = sum_lanes<T>(sum[i][0] + sum[i][1]);
    for (int64_t q = p; q < k; ++q) total += a[i * lda + q] * row[q];
    totals[i] = total;
  }
}

// Dot products too few for the threads and long: sums of pieces.
inline constexpr int64_t kFewLongDots = 8, kDotPiece = 16384;
template <int Rows, class T>
static void long_dot_products(const ops::GemmArgs<T>& args, int64_t index) {
  const T *a = args.a + index * args.stride_a, *b = args.b + index * args.stride_b;
  const int64_t pieces = ceil_div(args.k, kDotPiece);
  const Scratch<T> sums(args.n * pieces * Rows);
  parallel_for(args.n * pieces, [&](int64_t task) {
    const int64_t from = task % pieces * kDotPiece;
    dots_with<Rows>(a + from, args.lda, b + task / pieces * args.ldb + from,
                    min_of(kDotPiece, args.k - from), &sums[task * Rows]);
  });
  for (int i = 0; i < Rows; ++i)
    for (int64_t j = 0; j < args.n; ++j) {
      double total = 0;
      for (int64_t piece = 0; piece < pieces; ++piece)
        total += double(sums[(j * pieces + piece) * Rows + i]);
      store_sum(args, index, i, j, 1, broadcast(T(total)));
    }
}

// Rows of b^T are stored whole: c[0..Rows)[j] are dot products.
template <int Rows, class T>
static void dot_products(const ops::GemmArgs<T>& args, int64_t index) {
  if (args.n <= kFewLongDots && args.k >= 2 * kDotPiece)
    return long_dot_products<Rows>(args, index);
  const T *a = args.a + index * args.stride_a, *b = args.b + index * args.stride_b;
  const int64_t vectors = max_of<int64_t>((1 << 16) / max_of<int64_t>(args.k * kLanes<T>, 1), 1);
  parallel_ranges(args.n, vectors * kLanes<T>, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kLanes<T>) {
      const int64_t count = min_of<int64_t>(end - first, kLanes<T>);
      Vec<T> totals[Rows] = {};
      for (int64_t j = 0; j < count; ++j) {
        T column[Rows];
        dots_with<Rows>(a, args.lda, b + (first + j) * args.ldb, args.k, column);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) totals[i][j] = column[i];
      }
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) store_sum(args, index, i, first, count, totals[i]);
    }
  });
}

// Rows of b are stored whole: they are added up, times the elements of a, kDepth at a time into
// sums in L1.
template <int Rows, class T>
static void sums_of_rows(const ops::GemmArgs<T>& args, int64_t index) {
  constexpr int64_t kDepth = Rows <= 2 ? 8 : 4,
                    kMost = 64;  // of vectors a task's sums of a row have
  const T *a = args.a + index * args.stride_a, *b = args.b + index * args.stride_b;
  const int64_t a_row = args.trans_a ? 1 : args.lda, a_col = args.trans_a ? args.lda : 1;
  constexpr int64_t kTasks = 8;
  const int64_t vectors =
      min_of(kMost, max_of<int64_t>(ceil_div(ceil_div(args.n, kLanes<T>), kTasks), 8));
  parallel_ranges(args.n, vectors * kLanes<T>, [&](int64_t begin, int64_t end) {
    alignas(64) Vec<T> sums[Rows][kMost] = {};
    const auto add = [&]<int Depth>(int64_t p) {
      for (int64_t j = begin; j < end; j += kLanes<T>) {
        Vec<T> line[Depth];
#pragma GCC unroll 8
        for (int q = 0; q < Depth; ++q) {
          const T* const place = b + (p + q) * args.ldb + j;
          line[q] = load_first(place, end - j);
          __builtin_prefetch(place + Depth * args.ldb);  // the streams are short: a page each
        }
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
          Vec<T>& sum = sums[i][(j - begin) / kLanes<T>];
#pragma GCC unroll 8
          for (int q = 0; q < Depth; ++q) sum += a[i * a_row + (p + q) * a_col] * line[q];
        }
      }
    };
    int64_t p = 0;
    for (; p + kDepth <= args.k; p += kDepth) add.template operator()<kDepth>(p);
    for (; p < args.k; ++p) add.template operator()<1>(p);
    for (int i = 0; i < Rows; ++i)
      for (int64_t j = begin; j < end; j += kLanes<T>)
        store_sum(args, index, i, j, end - j, sums[i][(j - begin) / kLanes<T>]);
  });
}

// Little depth: every row of c is a sum of Depth rows of b, columns of which stay in L1 for all
// rows of a task.
template <int Depth, bool Plain, class T>
static void outer_products(const ops::GemmArgs<T>& args, int64_t index) {
  constexpr int64_t kWidth = (1 << 15) / static_cast<int64_t>(sizeof(T)) / Depth / kLanes<T>;
  constexpr int64_t kLeast = 1 << 14, kRows = 16, kTasks = 64;
  const T *a = args.a + index * args.stride_a, *b = args.b + index * args.stride_b;
  const int64_t a_row = args.trans_a ? 1 : args.lda, a_col = args.trans_a ? args.lda : 1;
  const int64_t grain = max_of<int64_t>(kLeast / max_of<int64_t>(args.n, 1), 1);
  const bool streamed = Plain && is_streamed<T>(args.m * args.n);
  const auto rows_of = [&](int64_t begin, int64_t end, int64_t first, int64_t width) {
    for (int64_t i = begin; i < end; ++i) {
      T factor[Depth];
      for (int p = 0; p < Depth; ++p) factor[p] = a[i * a_row + p * a_col];
      const auto sum = [&](int64_t j, int64_t count) {
        Vec<T> total = factor[0] * load_first(b + first + j, count);
#pragma GCC unroll 8
        for (int p = 1; p < Depth; ++p)
          total += factor[p] * load_first(b + p * args.ldb + first + j, count);
        return total;
      };
      T* const line = args.c + index * args.stride_c + i * args.ldc + first;
      if constexpr (Plain)
        write_line(line, width, streamed, sum);
      else
        along_line<T>(width, [&](int64_t j, int64_t count) {
          store_sum(args, index, i, first + j, count, sum(j, count));
        });
    }
  };
  parallel_ranges(args.m, max_of(grain, min_of(kRows, args.m / kTasks)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t j = 0; j < args.n; j += kWidth * kLanes<T>)
                      rows_of(begin, end, j, min_of(kWidth * kLanes<T>, args.n - j));
                    finish_streams(streamed);
                  });
}

// body<Count>() for the count, 1 to 8, that is given.
template <int Count = 8, class Body>
static void with_constant(int64_t count, const Body& body) {
  if (count == Count) return body.template operator()<Count>();
  if constexpr (Count > 1) with_constant<Count - 1>(count, body);
}

// Whether the product is one of these; if so it is done.
template <class T>
static bool skinny_gemm(const ops::GemmArgs<T>& args) {
  const bool dots = args.m <= ops::kFewDots && args.trans_b && !args.trans_a;
  const bool rows = args.m <= kFewRows && !args.trans_b;
  const bool outer = args.k >= 1 && args.k <= kLittleDepth && !args.trans_b;
  if (args.m < 1 || !(dots || rows || outer)) return false;
  const bool plain = is_plain(args);
  for (int64_t index = 0; index < args.batch; ++index) {
    if (dots)
      with_constant(args.m, [&]<int Rows>() { dot_products<Rows>(args, index); });
    else if (rows)
      with_constant(args.m, [&]<int Rows>() { sums_of_rows<Rows>(args, index); });
    else
      with_constant(args.k, [&]<int Depth>() {
        plain ? outer_products<Depth, true>(args, index)
              : outer_products<Depth, false>(args, index);
      });
  }
  return true;
}

LAMINA_CPU_NAMESPACE_END
