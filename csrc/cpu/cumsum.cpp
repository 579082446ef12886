// cumsum: running sums along n of [outer][n][inner] (ops/reduce.h).
//
// Method        inner == 1: within a vector by log2(lanes) shifted additions; what came before is
//               one addition more, the only one that waits for the vector before. Lines longer than
//               kPiece: the sums of their pieces first, then all pieces at once. Otherwise a row of
//               sums moves down the rows.
// Partitioning  lines or their pieces, or tiles of columns: by the shape alone.
// Numerics      added in double, each result rounded once.
// Floor         one read and one write of the tensor; two reads where lines are cut.
#include "cpu/reduce.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::CumsumArgs;

// v[i - distance], or v[i + distance] if reversed; 0 where there is none.
template <bool Reversed, int Distance>
LAMINA_INLINE Wide shifted(Wide v) {
  Mask<double> order{};
  for (int i = 0; i < kWide; ++i) {
    const int from = Reversed ? i + Distance : i - Distance;
    order[i] = from < 0 || from >= kWide ? kWide : from;
  }
  return __builtin_shuffle(v, Wide{}, order);
}
template <bool Reversed, int Distance = 1>
LAMINA_INLINE Wide running(Wide v) {
  if constexpr (Distance >= kWide)
    return v;
  else
    return running<Reversed, 2 * Distance>(v + shifted<Reversed, Distance>(v));
}

// The running sums of a piece that begins with `sum`; returns the sum behind it. Without a result:
// that alone, in the same order.
template <bool Reversed, class T>
static double run_along(const T* x, int64_t size, double sum, T* result) {
  Wide before = broadcast(sum);
  const auto step = [&](int64_t i, int64_t count) {
    const Wide sums = running<Reversed>(load_wide(x + i, count));
    if (result) store_wide(result + i, count, before + sums);
    const Mask<double> end = Mask<double>{} + (Reversed ? 0 : kWide - 1);
    before += __builtin_shuffle(sums, end);
  };
  const int64_t whole = size / kWide * kWide;
  if constexpr (Reversed) {
    if (whole < size) step(whole, size - whole);
    for (int64_t i = whole - kWide; i >= 0; i -= kWide) step(i, kWide);
  } else {
    for (int64_t i = 0; i < whole; i += kWide) step(i, kWide);
    if (whole < size) step(whole, size - whole);
  }
  return before[0];
}

template <bool Reversed, class T>
static void cumsum_lines(const CumsumArgs<T>& args) {
  const int64_t n = args.n;
  if (n <= kPiece)
    return parallel_ranges(args.outer, max_of<int64_t>(kPiece / max_of<int64_t>(n, 1), 1),
                           [&](int64_t begin, int64_t end) {
                             for (int64_t line = begin; line < end; ++line)
                               run_along<Reversed>(args.x + line * n, n, 0, args.result + line * n);
                           });
  const int64_t pieces = ceil_div(n, kPiece), tasks = args.outer * pieces;
  const Scratch<double> sums(tasks);
  const auto piece = [&](int64_t task, double sum, T* result) {
    const int64_t from = task % pieces * kPiece, at = task / pieces * n + from;
    return run_along<Reversed>(args.x + at, min_of(kPiece, n - from), sum,
                               result ? result + at : nullptr);
  };
  parallel_for(tasks, [&](int64_t task) { sums[task] = piece(task, 0, nullptr); });
  for (int64_t line = 0; line < args.outer; ++line) {
    double sum = 0;
    for (int64_t i = 0; i < pieces; ++i) {
      double& one = sums[line * pieces + (Reversed ? pieces - 1 - i : i)];
      const double next = sum + one;
      one = sum, sum = next;
    }
  }
  parallel_for(tasks, [&](int64_t task) { piece(task, sums[task], args.result); });
}

template <class T>
static void cumsum_columns(const CumsumArgs<T>& args) {
  constexpr int64_t kWidth = 1024;
  const int64_t n = args.n, inner = args.inner, width = min_of(inner, kWidth);
  const int64_t tiles = ceil_div(inner, width);
  const int64_t grain = max_of<int64_t>(kPiece / max_of<int64_t>(n * width, 1), 1);
  parallel_ranges(args.outer * tiles, grain, [&](int64_t begin, int64_t end) {
    alignas(64) double sums[kWidth];
    for (int64_t place = begin; place < end; ++place) {
      const int64_t column = place % tiles * width;
      const int64_t first = place / tiles * n * inner + column,
                    count = min_of(width, inner - column);
      for (int64_t j = 0; j < count; j += kWide) store(sums + j, Wide{});
      for (int64_t r = 0; r < n; ++r) {
        const int64_t at = first + (args.reversed ? n - 1 - r : r) * inner;
        for (int64_t j = 0; j < count; j += kWide) {
          const Wide sum = load(sums + j) + load_wide(args.x + at + j, count - j);
          store(sums + j, sum);
          store_wide(args.result + at + j, count - j, sum);
        }
      }
    }
  });
}

template <class T>
void cumsum_fprop_lines(const CumsumArgs<T>& args) {
  if (args.inner != 1)
    cumsum_columns(args);
  else
    args.reversed ? cumsum_lines<true>(args) : cumsum_lines<false>(args);
}

LAMINA_INSTANTIATE(cumsum_fprop_lines, CumsumArgs)

LAMINA_CPU_NAMESPACE_END
