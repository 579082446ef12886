// Windows of two or three columns of stride 1 or 2, or of three or four side by side, folded into
// sums or maxima: what average pools share with max pools whose indices nobody asks for, and with
// gradients of averages of one divisor.
//
// The rows of a window are folded first, in whole vectors of columns, once for all windows that
// share them; taps to the right come from that vector and the next by permutes. Rows of less than
// two vectors take windows of any kind.
#pragma once

#include <type_traits>

#include "cpu/pool_rows.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PoolArgs;

inline constexpr int64_t kMaxRows = 64;  // of a window, on the fast paths
inline constexpr int64_t kAhead = 4096;  // bytes between the rows in use and those asked for

template <class T>
struct Sum {
  static constexpr T kNothing = T(0);
  LAMINA_INLINE static Vec<T> join(Vec<T> a, Vec<T> b) { return a + b; }
};
template <class T>
struct Maximum {
  static constexpr T kNothing = -T(__builtin_inf());
  LAMINA_INLINE static Vec<T> join(Vec<T> a, Vec<T> b) { return maximum<T>(a, b); }
};

// The input elements behind a row of outputs.
template <class T>
static int64_t row_work(const PoolArgs<T>& args) {
  const int64_t rows = max_of<int64_t>(args.axis[0].out * args.axis[1].out, 1);
  return max_of(args.axis[2].out, args.in_size() / rows);
}

// Whether windows have few enough rows, and all have some.
template <class T>
static bool few_rows(const PoolArgs<T>& args) {
  int64_t most[2] = {0, 0};
  bool filled = true;
  for (int a = 0; a < 2; ++a)
    for (int64_t o = 0; o < args.axis[a].out; ++o) {
      most[a] = max_of(most[a], args.axis[a].count[o]);
      filled = filled && args.axis[a].count[o] > 0;
    }
  return filled && most[0] * most[1] <= kMaxRows;
}

// Calls body(stride, taps) with constants; taps is 0 where it, or a step other than 1, is known at
// run time only.
template <class Body>
LAMINA_INLINE void with_constants(const RegularColumns& columns, int64_t step, const Body& body) {
  using std::integral_constant;
  auto with_taps = [&](auto stride) {
    if (step == 1 && columns.taps == 2) return body(stride, integral_constant<int, 2>{});
    if (step == 1 && columns.taps == 3) return body(stride, integral_constant<int, 3>{});
    body(stride, integral_constant<int, 0>{});
  };
  if (columns.stride == 1)
    with_taps(integral_constant<int, 1>{});
  else
    with_taps(integral_constant<int, 2>{});
}
// Windows of three or four columns side by side.
LAMINA_INLINE RegularColumns adjacent_columns(const PoolAxis& axis) {
  RegularColumns columns(axis, 4);
  columns.holds =
      columns.holds && axis.step == 1 && columns.stride > 2 && columns.taps == columns.stride;
  return columns;
}

// The rows behind a row of outputs.
template <class T>
struct WindowRows {
  const T* first;
  int64_t depths, depth_pitch, rows, pitch;

  LAMINA_INLINE WindowRows(const PoolArgs<T>& args, int64_t plane, int64_t o0, int64_t o1)
      : first(args.x + plane * args.in_size() + window_row(args.axis, o0, o1, 0, 0)),
        depths(args.axis[0].count[o0]),
        depth_pitch(args.axis[0].step * args.axis[1].in * args.axis[2].in),
        rows(args.axis[1].count[o1]),
        pitch(args.axis[1].step * args.axis[2].in) {}
  // Asks for what the hardware does not see coming.
  LAMINA_INLINE void prefetch(int64_t elements) const {
    const T* last = first + (depths - 1) * depth_pitch + (rows - 1) * pitch;
    prefetch_line(last + kAhead / static_cast<int64_t>(sizeof(T)), elements);
  }
  // take(row) folded down the rows: ROWS of them, or as many as there are.
  template <class Fold, int ROWS, class Take>
  LAMINA_INLINE Vec<T> down(const Take& take) const {
    Vec<T> v = take(first);
    if constexpr (ROWS > 0) {
#pragma GCC unroll 4
      for (int r = 1; r < ROWS; ++r) v = Fold::join(v, take(first + r * pitch));
    } else {
      for (int64_t r = 1; r < rows; ++r) v = Fold::join(v, take(first + r * pitch));
      for (int64_t d = 1; d < depths; ++d)
        for (int64_t r = 0; r < rows; ++r)
          v = Fold::join(v, take(first + d * depth_pitch + r * pitch));
    }
    return v;
  }
};

// Vectors of a row of `in` elements that begin at `base` and every vector after it; nothing beyond
// the ends of the row.
template <class T>
class RowVectors {
 public:
  RowVectors(int64_t base, int64_t in)
      : base_(base),
        in_(in),
        last_(base +
              ceil_div(max_of<int64_t>(in - kLanes<T> + 1 - base, 0), kLanes<T>) * kLanes<T>),
        head_(-base, in - base),
        tail_(-last_, in - last_) {}

  // The one from `column` on, folded down the rows.
  template <class Fold, int ROWS>
  LAMINA_INLINE Vec<T> fold(const WindowRows<T>& rows, int64_t column) const {
    if (column >= 0 && column + kLanes<T> <= in_)
      return rows.template down<Fold, ROWS>([&](const T* row) { return load(row + column); });
    if (column >= in_) return broadcast(Fold::kNothing);
    const Lanes<T> inside = column == last_   ? tail_
                            : column == base_ ? head_
                                              : Lanes<T>(-column, in_ - column);
    return rows.template down<Fold, ROWS>(
        [&](const T* row) { return inside.load(row + column, Fold::kNothing); });
  }

 private:
  int64_t base_, in_, last_;  // the first that leaves the row
  Lanes<T> head_, tail_;
};

// Calls write(o, v) for each vector of a row of outputs.
template <class T, class Fold, int STRIDE, int TAPS, int ROWS, class Write>
LAMINA_INLINE void fold_row(const WindowRows<T>& rows, const RowVectors<T>& vectors,
                            const RegularColumns& columns, int64_t out, const Write& write) {
  struct Phases {
    Vec<T> of[STRIDE];  // columns 0, STRIDE, ...; 1, STRIDE + 1, ...
  };
  auto phases = [&](int64_t column) __attribute__((always_inline)) {
    Vec<T> line[STRIDE];
#pragma GCC unroll 4
    for (int i = 0; i < STRIDE; ++i)
      line[i] = vectors.template fold<Fold, ROWS>(rows, column + i * kLanes<T>);
    Phases phases;
    split_columns<T, STRIDE>(line, phases.of);
    return phases;
  };
  Phases now = phases(columns.base);
  for (int64_t o = 0; o < out; o += kLanes<T>) {
    Phases next{};
    if (TAPS > STRIDE || o + kLanes<T> < out) next = phases(columns.base + (o + kLanes<T>)*STRIDE);
    Vec<T> v = now.of[0];
#pragma GCC unroll 4
    for (int t = 1; t < TAPS; ++t)
      v = Fold::join(v, lanes_after<T>(now.of[t % STRIDE], next.of[t % STRIDE], t / STRIDE));
    write(o, v);
    now = next;
  }
}

// Where the taps of any windows lie in a row of less than two vectors; beyond its end where a
// window has fewer.
template <class T>
struct NarrowColumns {
  static constexpr int64_t kMostTaps = 8;
  bool holds = false, one_vector;
  int64_t taps = 0;
  Mask<T> place[kMostTaps];
  Lanes<T> inside[2];  // of the first vector, and the second

  explicit NarrowColumns(const PoolAxis& axis)
      : one_vector(axis.in < kLanes<T>),
        inside{Lanes<T>(0, axis.in), Lanes<T>(0, axis.in - kLanes<T>)} {
    for (int64_t o = 0; o < axis.out; ++o) taps = max_of(taps, axis.count[o]);
    holds = axis.in < 2 * kLanes<T> && axis.out <= kLanes<T> && taps >= 1 && taps <= kMostTaps;
    for (int64_t t = 0; t < taps && holds; ++t)
      for (int64_t o = 0; o < kLanes<T>; ++o) {
        const bool met = o < axis.out && t < axis.count[o];
        place[t][o] = static_cast<LaneInteger<T>>(met ? axis.start[o] + t * axis.step : axis.in);
      }
  }

  template <class Fold>
  LAMINA_INLINE Vec<T> fold(const WindowRows<T>& rows) const {
    auto half = [&](int i) __attribute__((always_inline)) {
      return rows.template down<Fold, 0>(
          [&](const T* row) { return inside[i].load(row + i * kLanes<T>, Fold::kNothing); });
    };
    const Vec<T> low = half(0), high = one_vector ? low : half(1);
    Vec<T> v = __builtin_shuffle(low, high, place[0]);
    for (int64_t t = 1; t < taps; ++t) v = Fold::join(v, __builtin_shuffle(low, high, place[t]));
    return v;
  }
};

// y = finish(folded window, o0, o1, o2) in vectors of o2, for the windows of this file. False
// for others.
template <class T, class Fold, class Finish>
static bool fold_windows(const PoolArgs<T>& args, const RegularColumns& columns,
                         const Finish& finish) {
  const PoolAxis* axis = args.axis;
  if (!few_rows(args)) return false;
  const NarrowColumns<T> narrow(axis[2]);
  const RegularColumns adjacent = adjacent_columns(axis[2]);
  const bool few = columns.holds && axis[2].step == 1 && columns.stride <= 2 &&
                   (columns.taps == 2 || columns.taps == 3);
  if (!few && !narrow.holds && !adjacent.holds) return false;
  const int64_t out = axis[2].out, work = row_work(args);
  const bool streamed = is_streamed<T>(args.planes * args.out_size());
  const bool large = streamed || large_input(args);
  for_each_row_group(args.planes, axis[0].out, axis[1].out, work, large, [&](const auto& rows) {
    auto each_row = [&](const auto& fold) {
      rows([&](int64_t plane, int64_t o0, int64_t o1) {
        const WindowRows<T> behind(args, plane, o0, o1);
        behind.prefetch(work);
        T* y = args.result + plane * args.out_size() + (o0 * axis[1].out + o1) * out;
        fold(behind, [&](int64_t o, Vec<T> folded) {
          store_result(y + o, out - o, finish(folded, o0, o1, o), streamed);
        });
      });
    };
    const auto each_fold = [&](const RegularColumns& own, auto stride, auto taps) {
      const RowVectors<T> vectors(own.base, axis[2].in);
      each_row([&](const auto& behind, const auto& write) {
        if (behind.depths == 1 && behind.rows == taps)
          fold_row<T, Fold, stride, taps, taps>(behind, vectors, own, out, write);
        else
          fold_row<T, Fold, stride, taps, 0>(behind, vectors, own, out, write);
      });
    };
    if (few)
      with_constants(columns, axis[2].step, [&](auto stride, auto taps) {
        if constexpr (taps > 0) each_fold(columns, stride, taps);
      });
    else if (narrow.holds)
      each_row([&](const auto& behind, const auto& write) {
        write(0, narrow.template fold<Fold>(behind));
      });
    else if (adjacent.stride == 3)
      each_fold(adjacent, std::integral_constant<int, 3>{}, std::integral_constant<int, 3>{});
    else
      each_fold(adjacent, std::integral_constant<int, 4>{}, std::integral_constant<int, 4>{});
  });
  return true;
}

LAMINA_CPU_NAMESPACE_END
