// reduce: sums, norms, products, variances (ops/reduce.h).
//
// Method        elements become doubles; along a line eight vectors are folded side by side,
// columns
//               are folded four rows at a time. Variances: mean and squares of a block that L1 or
//               the registers hold, joined with what was before (Chan, Golub & LeVeque 1979).
// Numerics      a line is folded in blocks of kBlock elements, so that the error of doubles does
// not
//               grow with its length; float results are rounded once.
// Floor         one read of the tensor; dgrad: one read and one write, of a sum the write alone.
#include "cpu/reduce.h"

#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Axes;
using ops::ReduceArgs;
using ops::Reduction;

static constexpr int64_t kBlock = 4096;

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

template <class Join, class T, class Of>
LAMINA_INLINE double fold_block(const T* x, int64_t size, const Of& of) {
  constexpr int kChains = 8;
  Wide chain[kChains];
#pragma GCC unroll 8
  for (int c = 0; c < kChains; ++c) chain[c] = broadcast(Join::kNone);
  int64_t i = 0;
  for (; i + kChains * kWide <= size; i += kChains * kWide)
#pragma GCC unroll 8
    for (int c = 0; c < kChains; ++c) {
      fetch_ahead(x + i + c * kWide, c * kWide);
      chain[c] = Join::join(chain[c], of(load_wide(x + i + c * kWide)));
    }
  for (; i + kWide <= size; i += kWide) chain[0] = Join::join(chain[0], of(load_wide(x + i)));
  if (i < size)
    chain[1] =
        Join::join(chain[1], first_lanes(of(load_wide(x + i, size - i)), size - i, Join::kNone));
#pragma GCC unroll 3
  for (int half = kChains / 2; half > 0; half /= 2)
#pragma GCC unroll 4
    for (int c = 0; c < half; ++c) chain[c] = Join::join(chain[c], chain[c + half]);
  return fold_lanes<Join>(chain[0]);
}

// One line, or a part of it.
template <class Join, class Of>
struct Folded {
  double value = Join::kNone;

  template <class T>
  LAMINA_INLINE void add(const T* x, int64_t, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += kBlock)
      value = Join::join(value, fold_block<Join>(x + begin, min_of(kBlock, count - begin), Of()));
  }
  void join(const Folded& next) { value = Join::join(value, next.value); }
};

template <class Join, class Of>
struct FoldedColumns {
  static constexpr int64_t kWidth = 1024;
  alignas(64) double value[kWidth];

  void start(int64_t count) {
    for (int64_t j = 0; j < count; j += kWide) store(value + j, broadcast(Join::kNone));
  }
  template <class T>
  void add(const T* x, int64_t rows, int64_t, int64_t distance, int64_t count) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) add_rows<4>(x + row * distance, distance, count);
    for (; row < rows; ++row) add_rows<1>(x + row * distance, distance, count);
  }
  template <int Rows, class T>
  LAMINA_INLINE void add_rows(const T* x, int64_t distance, int64_t count) {
    const auto step = [&](int64_t j, const auto& at) {
      Wide sum = load(value + j);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) sum = Join::join(sum, Of()(at(x + r * distance + j)));
      store(value + j, sum);
    };
    int64_t j = 0;
    for (; j + kWide <= count; j += kWide) step(j, [](const T* p) { return load_wide(p); });
    if (j < count) step(j, [&](const T* p) { return load_wide(p, count - j); });
  }
  void join(const FoldedColumns& next, int64_t count) {
    for (int64_t j = 0; j < count; j += kWide)
      store(value + j, Join::join(load(value + j), load(next.value + j)));
  }
};

// y = root(folded / divisor)
template <class Join, class Of, class T>
static void fold(const ReduceArgs<T>& args, bool root = false) {
  const double divisor = args.divisor;
  T* const y = args.result;
  const auto finished = [=](double value) {
    value /= divisor;
    return static_cast<T>(root ? __builtin_sqrt(value) : value);
  };
  if (in_columns(args))
    return reduce_columns<FoldedColumns<Join, Of>>(
        args.axes, args.x, [&](int64_t line, int64_t count, const FoldedColumns<Join, Of>& folded) {
          for (int64_t j = 0; j < count; ++j) y[line + j] = finished(folded.value[j]);
        });
  reduce_lines(
      args.axes, args.x, Folded<Join, Of>(),
      [&](int64_t line, const Folded<Join, Of>& folded) { y[line] = finished(folded.value); });
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
      block.mean = fold_block<Add>(x + begin, part, Itself()) / block.count;
      block.squares = fold_block<Add>(x + begin, part, SquareFrom{block.mean});
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
void reduce_fprop_runs(const ReduceArgs<T>& args) {
  switch (args.kind) {
    case Reduction::sum:
      return fold<Add, Itself>(args);
    case Reduction::absolute:
      return fold<Add, Absolute>(args);
    case Reduction::euclidean:
      return fold<Add, Square>(args, true);
    case Reduction::product:
      return fold<Multiply, Itself>(args);
    case Reduction::variance:
    case Reduction::deviation:
      return variance(args);
  }
}

// ---- Gradients

// grad_x = slope (x - centre), with a centre in two parts: its rounding would be that of x.
template <class T>
struct Slopes {
  explicit Slopes(const ReduceArgs<T>& args)
      : slope(args.axes.lines()),
        high(args.centre ? args.axes.lines() : 0),
        low(args.centre ? args.axes.lines() : 0) {
    const bool root = args.kind == Reduction::deviation || args.kind == Reduction::euclidean;
    const T divisor = static_cast<T>(args.divisor);
    const T times = args.kind == Reduction::variance ? T(2) : T(1);
    for (int64_t i = 0; i < args.axes.lines(); ++i) {
      const T y = root ? args.y[i] : T(1), g = times * args.grad_y[i] / divisor;
      slope[i] = y == T(0) ? T(0) : g / y;
    }
    if (args.centre)
      for (int64_t i = 0; i < args.axes.lines(); ++i) {
        high[i] = static_cast<T>(args.centre[i]);
        low[i] = static_cast<T>(args.centre[i] - high[i]);
      }
  }
  Scratch<T> slope, high, low;
};

template <class T>
LAMINA_INLINE Vec<T> sign_of(Vec<T> v) {
  return v > T(0) ? broadcast(T(1)) : v < T(0) ? broadcast(T(-1)) : v;
}

template <class T>
void reduce_dgrad_runs(const ReduceArgs<T>& args) {
  const Axes& axes = args.axes;
  const Slopes<T> of(args);
  const bool columns = in_columns(args), centred = args.centre != nullptr;
  const int64_t length = columns ? axes.inner : axes.m;
  const bool streamed = length >= kBlock / 4 && is_streamed<T>(axes.size());
  const T* const x = args.x;
  T* const grad_x = args.result;
  for_each_stretch(axes.size(), length, [&](int64_t run, int64_t from, int64_t to) {
    // The line of the run, or of its first column.
    const int64_t line = columns ? run / axes.n * axes.inner
                                 : run / (axes.n * axes.inner) * axes.inner + run % axes.inner;
    const int64_t at = run * length + from;
    const auto write = [&](const auto& value) {
      write_line(grad_x + at, to - from, streamed, [&](int64_t i, int64_t count) {
        const auto of_line = [&](const Scratch<T>& values) {
          return columns ? load_first(values.get() + line + from + i, count)
                         : broadcast(values[line]);
        };
        return value(i, count, of_line);
      });
    };
    if (x == nullptr)
      write([&](int64_t, int64_t, const auto& get) { return get(of.slope); });
    else if (args.kind == Reduction::absolute)
      write([&](int64_t i, int64_t count, const auto& get) {
        return get(of.slope) * sign_of<T>(load_first(x + at + i, count));
      });
    else if (centred)
      write([&](int64_t i, int64_t count, const auto& get) {
        return get(of.slope) * (load_first(x + at + i, count) - get(of.high) - get(of.low));
      });
    else
      write([&](int64_t i, int64_t count, const auto& get) {
        return get(of.slope) * load_first(x + at + i, count);
      });
    finish_streams(streamed);
  });
}

LAMINA_INSTANTIATE(reduce_fprop_runs, ReduceArgs)
LAMINA_INSTANTIATE(reduce_dgrad_runs, ReduceArgs)

LAMINA_CPU_NAMESPACE_END
