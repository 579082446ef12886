// reduce: sums, norms, products, logarithms of sums of powers, variances (ops/reduce.h).
//
// Method        elements become doubles; along a line eight vectors are folded side by side, the
//               lanes of short lines a vector of lines at a time, columns four rows at a time.
//               Variances: mean and squares of a block that L1 holds, joined with what was before
//               (Chan, Golub & LeVeque 1979).
// Numerics      a line is folded in blocks of kBlock elements, so that the error of doubles does
//               not grow with its length; float results are rounded once.
// Floor         one read of the tensor; dgrad: one read and one write, of a sum the write alone.
#include "cpu/reduce.h"

#include "cpu/logsumexp.h"
#include "cpu/product_gradient.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Axes;
using ops::ReduceArgs;
using ops::Reduction;

static constexpr int64_t kBlock = 4096, kAlone = 256;

struct Add {
  static constexpr double kNone = 0;
  template <class V>
  LAMINA_INLINE static V join(V a, V b) {
    return a + b;
  }
};
struct Multiply {
  static constexpr double kNone = 1;
  template <class V>
  LAMINA_INLINE static V join(V a, V b) {
    return a * b;
  }
};

struct Itself {
  LAMINA_INLINE Wide operator()(Wide v) const { return v; }
};
struct Absolute {
  LAMINA_INLINE Wide operator()(Wide v) const { return v < 0.0 ? -v : v; }
};
struct Square {
  LAMINA_INLINE Wide operator()(Wide v) const { return v * v; }
};
struct SquareFrom {
  double centre;
  LAMINA_INLINE Wide operator()(Wide v) const { return (v - centre) * (v - centre); }
};

template <class Join, int WIDTH = kWide / 2>
LAMINA_INLINE double fold_lanes(Wide v) {
  v = Join::join(v, lanes_ahead<double, WIDTH>(v));
  if constexpr (WIDTH == 1)
    return v[0];
  else
    return fold_lanes<Join, WIDTH / 2>(v);
}

// A line, lane by lane.
template <class Join, class T, class Of>
LAMINA_INLINE Wide fold_block(const T* x, int64_t size, const Of& of) {
  constexpr int kChains = 8;
  Wide folded = broadcast(Join::kNone), other = folded;
  int64_t i = 0;
  if (size >= kChains * kWide) {
    Wide chain[kChains];
#pragma GCC unroll 8
    for (Wide& one : chain) one = broadcast(Join::kNone);
    for (; i + kChains * kWide <= size; i += kChains * kWide)
#pragma GCC unroll 8
      for (int c = 0; c < kChains; ++c) {
        fetch_ahead(x + i + c * kWide, c * kWide);
        chain[c] = Join::join(chain[c], of(load_wide(x + i + c * kWide)));
      }
#pragma GCC unroll 3
    for (int half = kChains / 2; half > 0; half /= 2)
#pragma GCC unroll 4
      for (int c = 0; c < half; ++c) chain[c] = Join::join(chain[c], chain[c + half]);
    folded = chain[0];
  }
  for (; i + 2 * kWide <= size; i += 2 * kWide) {
    folded = Join::join(folded, of(load_wide(x + i)));
    other = Join::join(other, of(load_wide(x + i + kWide)));
  }
  for (; i < size; i += kWide)
    folded = Join::join(folded, first_lanes(of(load_wide(x + i, size - i)), size - i, Join::kNone));
  return Join::join(folded, other);
}

// One line, or a part of it.
template <class Join, class Of>
struct Folded {
  Wide lanes = broadcast(Join::kNone);

  template <class T>
  LAMINA_INLINE void add(const T* x, int64_t, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += kBlock)
      lanes = Join::join(lanes, fold_block<Join>(x + begin, min_of(kBlock, count - begin), Of()));
  }
  LAMINA_INLINE void join(const Folded& next) { lanes = Join::join(lanes, next.lanes); }
};

template <class Join, class Of>
struct FoldedColumns {
  static constexpr int64_t kWidth = 1024, kNarrow = 128;
  alignas(64) double value[kWidth];

  void start(int64_t count) {
    for (int64_t j = 0; j < count; j += kWide) store(value + j, broadcast(Join::kNone));
  }
  template <class T>
  void add(const T* x, int64_t rows, int64_t, int64_t distance, int64_t count) {
    // Narrow rows one behind the other are added several at a time, as one of so many columns.
    const bool narrow = distance == count && count <= kNarrow / 2;
    const int64_t together = narrow ? kNarrow / count : 1, groups = rows / together;
    if (!narrow || groups < 4) return add_rows(x, rows, distance, count);
    const int64_t wide = together * count, rest = rows - groups * together;
    start(wide);
    add_rows(x, groups, wide, wide);
    add_rows<1>(x + groups * wide, wide, rest * count);
    for (int64_t j = count; j < wide; ++j)
      value[j % count] = Join::join(value[j % count], value[j]);
  }
  template <class T>
  LAMINA_INLINE void add_rows(const T* x, int64_t rows, int64_t distance, int64_t count) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) add_rows<4>(x + row * distance, distance, count);
    for (; row < rows; ++row) add_rows<1>(x + row * distance, distance, count);
  }
  template <int Rows, class T>
  LAMINA_INLINE void add_rows(const T* x, int64_t distance, int64_t count) {
    const auto step = [&](int64_t j, const auto& at) {
      Wide sum = load(value + j);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) sum = Join::join(sum, at(x + r * distance + j));
      store(value + j, sum);
    };
    int64_t j = 0;
    for (; j + kWide <= count; j += kWide) step(j, [](const T* p) { return Of()(load_wide(p)); });
    const int64_t left = count - j;
    if (left > 0)
      step(j, [=](const T* p) { return first_lanes(Of()(load_wide(p, left)), left, Join::kNone); });
  }
  void join(const FoldedColumns& next, int64_t count) {
    for (int64_t j = 0; j < count; j += kWide)
      store(value + j, Join::join(load(value + j), load(next.value + j)));
  }
};

// Lines of `size` elements, lane by lane: side by side unless their vectors are chains enough.
template <class Join, class Of, class T>
LAMINA_INLINE void fold_short(const T* const (&x)[kWide], int64_t size, Wide (&folded)[kWide]) {
  if (size >= kAlone) {
    for (int k = 0; k < kWide; ++k) folded[k] = fold_block<Join>(x[k], size, Of());
    return;
  }
#pragma GCC unroll 8
  for (Wide& one : folded) one = broadcast(Join::kNone);
  const auto add = [&](int k, int64_t at) {
    folded[k] = Join::join(folded[k], Of()(load_wide(x[k] + at)));
  };
  const int64_t ahead = kWide * (x[1] - x[0]);
  int64_t i = 0;
  for (; i + 2 * kWide <= size; i += 2 * kWide)
#pragma GCC unroll 8
    for (int k = 0; k < kWide; ++k) {
      __builtin_prefetch(x[k] + i + ahead);  // of the next lines
      add(k, i), add(k, i + kWide);
    }
  if (i + kWide <= size) {
#pragma GCC unroll 8
    for (int k = 0; k < kWide; ++k) add(k, i);
    i += kWide;
  }
  const int64_t left = size - i;
  if (left > 0)
#pragma GCC unroll 8
    for (int k = 0; k < kWide; ++k)
      folded[k] =
          Join::join(folded[k], first_lanes(Of()(load_wide(x[k] + i, left)), left, Join::kNone));
}

// y = root(folded / divisor)
template <class Join, class Of, class T>
static void fold(const ReduceArgs<T>& args, bool root = false) {
  const double divisor = args.divisor;
  T* const y = args.result;
  double* const exact = args.centre;
  const auto finish = [=](int64_t line, int64_t count, Wide values) {
    values /= divisor;
    if (exact) store_first(exact + line, count, values);
    store_wide(y + line, count, root ? square_root<double>(values) : values);
  };
  if (in_columns(args))
    return reduce_columns<FoldedColumns<Join, Of>>(
        args.axes, args.x, [&](int64_t line, int64_t count, const FoldedColumns<Join, Of>& folded) {
          for (int64_t j = 0; j < count; j += kWide)
            finish(line + j, count - j, load(folded.value + j));
        });
  if (in_short_lines(args.axes))
    return for_short_lines<kWide>(
        args.axes, args.x, kPiece,
        [&](const auto& x, int64_t line, int64_t count) [[gnu::always_inline]] {
          Wide folded[kWide];
          fold_short<Join, Of>(x, args.axes.m, folded);
          finish(line, count,
                 fold_each<double>(folded, [](Wide a, Wide b) { return Join::join(a, b); }));
        });
  reduce_lines(args.axes, args.x, Folded<Join, Of>(),
               [&](int64_t line, const Folded<Join, Of>& folded) {
                 finish(line, 1, broadcast(fold_lanes<Join>(folded.lanes)));
               });
}

// ---- Variances

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: of the distances from the mean

  template <class T>
  LAMINA_INLINE void add(const T* x, int64_t, int64_t size) {
    for (int64_t begin = 0; begin < size; begin += kBlock) {
      const int64_t part = min_of(kBlock, size - begin);
      Moments block;
      block.count = static_cast<double>(part);
      block.mean = fold_lanes<Add>(fold_block<Add>(x + begin, part, Itself())) / block.count;
      block.squares = fold_lanes<Add>(fold_block<Add>(x + begin, part, SquareFrom{block.mean}));
      join(block);
    }
  }
  LAMINA_INLINE void join(const Moments& next) {
    if (count == 0) return void(*this = next);
    const double share = next.count / (count + next.count), distance = next.mean - mean;
    mean += distance * share;
    squares += next.squares + distance * distance * (count * share);
    count += next.count;
  }
};

struct MomentColumns {
  static constexpr int64_t kWidth = 256;
  static constexpr int kRows = 16;
  double count;
  alignas(64) double mean[kWidth], squares[kWidth];

  void start(int64_t) { count = 0; }
  template <class T>
  void add(const T* x, int64_t rows, int64_t, int64_t distance, int64_t columns) {
    int64_t row = 0;
    for (; row + kRows <= rows; row += kRows)
      add_rows(x + row * distance, kRows, distance, columns);
    if (row < rows) add_rows(x + row * distance, rows - row, distance, columns);
  }
  template <class T>
  LAMINA_INLINE void add_rows(const T* x, int64_t rows, int64_t distance, int64_t columns) {
    const double added = static_cast<double>(rows), inverse = 1 / added;
    for (int64_t j = 0; j < columns; j += kWide) {
      const auto at = [&](int64_t r) { return load_wide(x + r * distance + j, columns - j); };
      Wide sum = at(0), second = {};
      for (int64_t r = 1; r < rows; ++r) sum += at(r);
      const Wide centre = sum * inverse;
      for (int64_t r = 0; r < rows; ++r) second += (at(r) - centre) * (at(r) - centre);
      join(j, added, centre, second);
    }
    count += added;
  }
  void join(const MomentColumns& next, int64_t columns) {
    for (int64_t j = 0; j < columns; j += kWide)
      join(j, next.count, load(next.mean + j), load(next.squares + j));
    count += next.count;
  }
  LAMINA_INLINE void join(int64_t j, double added, Wide centre, Wide second) {
    if (count > 0) {
      const double share = added / (count + added);
      const Wide old = load(mean + j), distance = centre - old;
      centre = old + distance * share;
      second = load(squares + j) + (second + distance * distance * (count * share));
    }
    store(mean + j, centre), store(squares + j, second);
  }
};

template <class T>
static void variance(const ReduceArgs<T>& args) {
  const bool root = args.kind == Reduction::deviation;
  const auto finish = [&](int64_t line, double mean, double squares) {
    const double value = squares / args.divisor;
    args.result[line] = static_cast<T>(root ? __builtin_sqrt(value) : value);
    if (args.centre) args.centre[line] = mean;
  };
  if (in_columns(args))
    return reduce_columns<MomentColumns>(
        args.axes, args.x, [&](int64_t line, int64_t count, const MomentColumns& columns) {
          for (int64_t j = 0; j < count; ++j) finish(line + j, columns.mean[j], columns.squares[j]);
        });
  reduce_lines(args.axes, args.x, Moments(), [&](int64_t line, const Moments& moments) {
    finish(line, moments.mean, moments.squares);
  });
}

template <class T>
static void logsumexp(const ReduceArgs<T>& args) {
  if (in_columns(args))
    return reduce_columns<PowerSumColumns<T>>(
        args.axes, args.x, [&](int64_t line, int64_t count, const PowerSumColumns<T>& columns) {
          for (int64_t j = 0; j < count; ++j)
            args.result[line + j] = PowerSum<T>{columns.top[j], columns.sum[j]}.logarithm();
        });
  constexpr int64_t kElements = kPiece / 4, kGroupedLine = kShortLine / 4;  // that L1 holds
  if (in_short_lines(args.axes) && args.axes.m <= kGroupedLine)
    return for_short_lines<kLanes<T>>(args.axes, args.x, kElements,
                                      [&](const auto& x, int64_t line, int64_t count) {
                                        short_logsumexp(x, args.axes.m, count, args.result + line);
                                      });
  reduce_lines(args.axes, args.x, PowerSum<T>(), [&](int64_t line, const PowerSum<T>& powers) {
    args.result[line] = powers.logarithm();
  });
}

template <class T>
void reduce_fprop_runs(const ReduceArgs<T>& args) {
  switch (args.kind) {
    case Reduction::sum:
      return fold<Add, Itself>(args);
    case Reduction::squares:
      return fold<Add, Square>(args);
    case Reduction::absolute:
      return fold<Add, Absolute>(args);
    case Reduction::euclidean:
      return fold<Add, Square>(args, true);
    case Reduction::product:
      return fold<Multiply, Itself>(args);
    case Reduction::logsumexp:
      return logsumexp(args);
    case Reduction::variance:
    case Reduction::deviation:
      return variance(args);
  }
}

// ---- Gradients

// grad_x = slope (x - centre) of a line, with the centre in two parts: it is not rounded as x is.
// Of logsumexp y is in the centre's place.
template <class T>
struct Slope {
  T slope, high, low;

  LAMINA_INLINE Slope(const ReduceArgs<T>& args, int64_t line) {
    const bool root = args.kind == Reduction::deviation || args.kind == Reduction::euclidean;
    const bool twice = args.kind == Reduction::variance || args.kind == Reduction::squares;
    const T times = twice ? T(2) : T(1);
    const T y = root ? args.y[line] : T(1);
    slope = y == T(0) ? T(0) : times * args.grad_y[line] / static_cast<T>(args.divisor) / y;
    const double centre = args.centre ? args.centre[line] : 0;
    high = static_cast<T>(centre), low = static_cast<T>(centre - high);
    if (args.kind == Reduction::logsumexp) high = args.y[line];
  }
};

template <class T>
struct SlopeAlone {
  static constexpr bool kReadsX = false;
  LAMINA_INLINE static Vec<T> of(Vec<T>, Vec<T> slope, Vec<T>, Vec<T>) { return slope; }
};
template <class T>
struct SlopeOfSign {
  static constexpr bool kReadsX = true;
  LAMINA_INLINE static Vec<T> of(Vec<T> x, Vec<T> slope, Vec<T>, Vec<T>) {
    return slope * (x > T(0) ? broadcast(T(1)) : x < T(0) ? broadcast(T(-1)) : x);
  }
};
template <class T>
struct SlopeFromZero {
  static constexpr bool kReadsX = true;
  LAMINA_INLINE static Vec<T> of(Vec<T> x, Vec<T> slope, Vec<T>, Vec<T>) { return slope * x; }
};
template <class T>
struct SlopeOfPower {
  static constexpr bool kReadsX = true;
  LAMINA_INLINE static Vec<T> of(Vec<T> x, Vec<T> slope, Vec<T> y, Vec<T>) {
    return slope * exp<T>(x - y);
  }
};
template <class T>
struct SlopeFromCentre {
  static constexpr bool kReadsX = true;
  LAMINA_INLINE static Vec<T> of(Vec<T> x, Vec<T> slope, Vec<T> high, Vec<T> low) {
    return slope * (x - high - low);
  }
};

template <class Form, class T>
static void gradient_lines(const ReduceArgs<T>& args) {
  const Axes& axes = args.axes;
  const bool streamed = axes.m >= kShortLine && is_streamed<T>(axes.size());
  for_each_stretch(axes.size(), axes.m, [&](int64_t run, int64_t from, int64_t to) {
    const int64_t line =
        axes.n == 1 ? run : run / (axes.n * axes.inner) * axes.inner + run % axes.inner;
    const Slope<T> one(args, line);
    const Vec<T> slope = broadcast(one.slope), high = broadcast(one.high);
    const Vec<T> low = broadcast(one.low);
    const int64_t at = run * axes.m + from;
    write_line(args.result + at, to - from, streamed, [&](int64_t i, int64_t count) {
      const Vec<T> x = Form::kReadsX ? load_first(args.x + at + i, count) : Vec<T>{};
      return Form::of(x, slope, high, low);
    });
    finish_streams(streamed);
  });
}

// Blocks of rows of a tile of columns; whole rows that are narrow, several at a time.
template <class Form, class T>
static void gradient_columns(const ReduceArgs<T>& args) {
  constexpr int64_t kWidth = 1024;
  const int64_t n = args.axes.n, inner = args.axes.inner, width = min_of(inner, kWidth);
  const int64_t tiles = ceil_div(inner, width), rows = min_of(n, kPiece / width);
  const int64_t blocks = ceil_div(n, rows), grain = max_of<int64_t>(kPiece / (rows * width), 1);
  const bool streamed = is_streamed<T>(args.axes.size());
  parallel_ranges(args.axes.outer * tiles * blocks, grain, [&](int64_t task, int64_t end) {
    alignas(64) T slope[kWidth + kLanes<T>], high[kWidth + kLanes<T>], low[kWidth + kLanes<T>];
    for (; task < end; ++task) {
      const int64_t place = task / blocks, outer = place / tiles, column = place % tiles * width;
      const int64_t begin = task % blocks * rows, stop = min_of(n, begin + rows);
      const int64_t together = tiles == 1 ? min_of(kWidth / inner, stop - begin) : 1;
      const int64_t count = min_of(width, inner - column), filled = count * together;
      for (int64_t j = 0; j < count; ++j) {
        const Slope<T> one(args, outer * inner + column + j);
        slope[j] = one.slope, high[j] = one.high, low[j] = one.low;
      }
      for (int64_t j = count; j < filled; ++j)
        slope[j] = slope[j - count], high[j] = high[j - count], low[j] = low[j - count];
      for (int64_t row = begin; row < stop; row += together) {
        const int64_t at = (outer * n + row) * inner + column;
        const int64_t size = min_of(together, stop - row) * count;
        write_line(args.result + at, size, streamed, [&](int64_t i, int64_t some) {
          const Vec<T> x = Form::kReadsX ? load_first(args.x + at + i, some) : Vec<T>{};
          return Form::of(x, load(slope + i), load(high + i), load(low + i));
        });
      }
    }
    finish_streams(streamed);
  });
}

template <class Form, class T>
static void gradient(const ReduceArgs<T>& args) {
  in_columns(args) ? gradient_columns<Form>(args) : gradient_lines<Form>(args);
}

template <class T>
void reduce_dgrad_runs(const ReduceArgs<T>& args) {
  switch (args.kind) {
    case Reduction::sum:
      return gradient<SlopeAlone<T>>(args);
    case Reduction::absolute:
      return gradient<SlopeOfSign<T>>(args);
    case Reduction::squares:
    case Reduction::euclidean:
      return gradient<SlopeFromZero<T>>(args);
    case Reduction::product:
      return product_gradient(args);
    case Reduction::logsumexp:
      return gradient<SlopeOfPower<T>>(args);
    case Reduction::variance:
    case Reduction::deviation:
      return gradient<SlopeFromCentre<T>>(args);
  }
}

LAMINA_INSTANTIATE(reduce_fprop_runs, ReduceArgs)
LAMINA_INSTANTIATE(reduce_dgrad_runs, ReduceArgs)

LAMINA_CPU_NAMESPACE_END
