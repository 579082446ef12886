// Windows of any columns: the rows of a window are folded first, into a line, from which a vector
// of outputs gathers its taps one by one. Where windows are long each is folded in vectors, and the
// lanes of a vector of outputs together.
#pragma once

#include "cpu/pool_fold.h"
#include "cpu/pool_largest.h"

LAMINA_CPU_NAMESPACE_BEGIN

// A tap of a vector of outputs: its columns, and which outputs have it.
template <class T>
struct Tap {
  Mask<T> column, met;
};

// Any columns. A tap that a window does not have lies behind them, where nothing is.
template <class T>
class GatheredColumns {
 public:
  int64_t begin, end = 0, room;  // the columns used; elements of a line

  explicit GatheredColumns(const PoolAxis& axis)
      : begin(axis.in),
        room(axis.in + 2 * kLanes<T>),
        start_(axis.out + kLanes<T>),
        count_(axis.out + kLanes<T>),
        step_(static_cast<LaneInteger<T>>(axis.step)),
        nothing_(static_cast<LaneInteger<T>>(axis.in + kLanes<T>)) {
    for (int64_t o = 0; o < axis.out + kLanes<T>; ++o) {
      const bool holds = o < axis.out && axis.count[o] > 0;
      start_[o] = static_cast<LaneInteger<T>>(holds ? axis.start[o] : 0);
      count_[o] = static_cast<LaneInteger<T>>(holds ? axis.count[o] : 0);
      if (!holds) continue;
      begin = min_of(begin, axis.start[o]);
      end = max_of(end, axis.start[o] + (axis.count[o] - 1) * axis.step + 1);
      taps_ = max_of(taps_, axis.count[o]);
    }
    begin = min_of(begin, end);
  }

  template <class Body>
  LAMINA_INLINE void each_tap(int64_t o, const Body& body) const {
    Mask<T> column, count;
    __builtin_memcpy(&column, start_.get() + o, sizeof column);
    __builtin_memcpy(&count, count_.get() + o, sizeof count);
    for (LaneInteger<T> t = 0; t < taps_; ++t, column += step_) {
      const Mask<T> met = count > t;
      body(Tap<T>{met ? column : Mask<T>{} + nothing_, met});
    }
  }
  template <class Element>
  LAMINA_INLINE Vec<T> load(const Element* line, const Tap<T>& tap) const {
    return gather<T>(line, tap.column);
  }

 private:
  Scratch<LaneInteger<T>> start_, count_;
  int64_t taps_ = 0;
  LaneInteger<T> step_, nothing_;
};

// y = finish(folded window, o0, o1, o2) in vectors of o2.
template <class T, class Fold, class Finish>
static void fold_taps(const PoolArgs<T>& args, const Finish& finish) {
  const PoolAxis* axis = args.axis;
  const int64_t work = row_work(args);
  const GatheredColumns<T> columns(axis[2]);
  for_each_row_group(
      args.planes, axis[0].out, axis[1].out, work, large_input(args), [&](const auto& rows) {
        const Scratch<T> line(columns.room);
        fill(line.get(), columns.room, Fold::kNothing);
        rows([&](int64_t plane, int64_t o0, int64_t o1) {
          T* y = args.result + ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
          const T* x = args.x + plane * args.in_size();
          if (axis[0].count[o0] * axis[1].count[o1] > 0)
            WindowRows<T>(args, plane, o0, o1).prefetch(work);
          for (int64_t j = columns.begin; j < columns.end; j += kLanes<T>) {
            Vec<T> v = broadcast<T>(Fold::kNothing);
            for_each_window_row(axis, o0, o1, [&](int64_t row) {
              v = Fold::join(v, load_first(x + row + j, columns.end - j, Fold::kNothing));
            });
            store(&line[j], v);
          }
          for (int64_t o = 0; o < axis[2].out; o += kLanes<T>) {
            Vec<T> v = broadcast<T>(Fold::kNothing);
            columns.each_tap(
                o, [&](const Tap<T>& tap) { v = Fold::join(v, columns.load(line.get(), tap)); });
            store_first(y + o, axis[2].out - o, finish(v, o0, o1, o));
          }
        });
      });
}

inline constexpr int64_t kFewColumns = 4;  // taken as fast one by one

// y = finish(folded windows, divisors) in vectors of outputs of any rows, for windows of columns
// that follow each other: each is folded in vectors.
template <class T, class Fold, class Finish>
static void fold_runs(const PoolArgs<T>& args, const Finish& finish) {
  const PoolAxis* axis = args.axis;
  const int64_t work = row_work(args);
  const Scratch<Lanes<T>> last(axis[2].out);  // of a window's last vector
  for (int64_t o = 0; o < axis[2].out; ++o)
    last[o] = Lanes<T>(
        0, axis[2].count[o] - (max_of<int64_t>(axis[2].count[o], 1) - 1) / kLanes<T> * kLanes<T>);
  for_each_row_group(
      args.planes, axis[0].out, axis[1].out, work, large_input(args), [&](const auto& rows) {
        Vec<T> folded[kLanes<T>];
        T divisor[kLanes<T>];
        for (T& each : divisor) each = 1;
        T* y = nullptr;  // where the outputs begin that are not written
        int64_t held = 0;
        auto write = [&] {
          for (int64_t k = held; k < kLanes<T>; ++k) folded[k] = broadcast<T>(Fold::kNothing);
          store_first<T>(
              y, held,
              finish(fold_each<T>(folded, [](Vec<T> a, Vec<T> b) { return Fold::join(a, b); }),
                     load(divisor)));
          y += held, held = 0;
        };
        rows([&](int64_t plane, int64_t o0, int64_t o1) {
          const WindowRows<T> behind(args, plane, o0, o1);
          behind.prefetch(work);
          const int64_t divide = axis[0].divisor[o0] * axis[1].divisor[o1];
          if (!y) y = args.result + ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
          for (int64_t o = 0; o < axis[2].out; ++o) {
            int64_t i = axis[2].start[o];
            const int64_t end = i + axis[2].count[o];
            const auto rest = [&] {
              return behind.template down<Fold, 0>(
                  [&](const T* row) { return last[o].load(row + i, Fold::kNothing); });
            };
            if (end - i <= kLanes<T>) {
              folded[held] = rest();
            } else {
              Vec<T> v = broadcast<T>(Fold::kNothing);
              for (; i + kLanes<T> < end; i += kLanes<T>)
                v = Fold::join(
                    v, behind.template down<Fold, 0>([&](const T* row) { return load(row + i); }));
              folded[held] = Fold::join(v, rest());
            }
            divisor[held] = T(divide * axis[2].divisor[o]);
            if (++held == kLanes<T>) write();
          }
        });
        if (held > 0) write();
      });
}

// Whether the columns of a window follow each other, are more than `few`, and hardly any are in two
// windows.
static bool are_runs(const PoolAxis& axis, int64_t few) {
  int64_t covered = 0;
  for (int64_t o = 0; o < axis.out; ++o) covered += axis.count[o];
  return axis.step == 1 && covered <= 2 * axis.in && covered > few * axis.out;
}

// All lanes joined in each, as a fixed tree.
template <class T, int WIDTH = kLanes<T> / 2, class V, class Join>
LAMINA_INLINE V across(V v, const Join& join) {
  Mask<T> order{};
  for (int i = 0; i < kLanes<T>; ++i) order[i] = (i + WIDTH) % kLanes<T>;
  v = join(v, __builtin_shuffle(v, order));
  if constexpr (WIDTH == 1)
    return v;
  else
    return across<T, WIDTH / 2>(v, join);
}

// The first largest of n > 0 elements in a run: NaN wins.
template <class T>
static int64_t first_largest(const T* x, int64_t n) {
  constexpr int kChains = 4;
  constexpr T kLeast = -T(__builtin_inf());
  Largest<T> chain[kChains];
  int64_t i = 0;
  for (; i + kChains * kLanes<T> <= n; i += kChains * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c)
      chain[c].offer(load(x + i + c * kLanes<T>), static_cast<LaneInteger<T>>(i));
  for (int c = 0; i < n; i += kLanes<T>, ++c)  // the offset of a chain is that of its first vector
    chain[c].offer(load_first(x + i, n - i, kLeast),
                   static_cast<LaneInteger<T>>(i - c * kLanes<T>));
  const Vec<T> top = across<T>(maximum<T>(maximum<T>(chain[0].value, chain[1].value),
                                          maximum<T>(chain[2].value, chain[3].value)),
                               [](Vec<T> a, Vec<T> b) { return maximum<T>(a, b); });
  Mask<T> place = Mask<T>{} + static_cast<LaneInteger<T>>(n);
  for (int c = 0; c < kChains; ++c) {
    const Vec<T> v = chain[c].value;
    const Mask<T> own = chain[c].offset + c * kLanes<T> + lane_numbers<T>();
    place = ((v == top) | ((v != v) & (top != top))) & (own < place) ? own : place;
  }
  place = across<T>(place, [](Mask<T> a, Mask<T> b) { return a < b ? a : b; });
  return place[0];
}

// Maxima and their places. Down a column the first of equals wins; across columns
// the first in the order of rows, not the first met.
template <class T>
static void largest_taps(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const GatheredColumns<T> columns(axis[2]);
  for_each_row_group(
      args.planes, axis[0].out, axis[1].out, row_work(args), large_input(args),
      [&](const auto& rows) {
        const Scratch<T> line(columns.room);
        const Scratch<LaneInteger<T>> row_of(columns.room);
        fill(line.get(), columns.room, -T(__builtin_inf()));
        fill(row_of.get(), columns.room, LaneInteger<T>(0));
        rows([&](int64_t plane, int64_t o0, int64_t o1) {
          const T* x = args.x + plane * args.in_size();
          const int64_t at = ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
          if (axis[0].count[o0] == 0 || axis[1].count[o1] == 0) {
            fill(args.result + at, axis[2].out, -T(__builtin_inf()));
            fill(args.index + at, axis[2].out, int64_t{0});
            return;
          }
          const int64_t first = window_row(axis, o0, o1, 0, 0);
          for (int64_t j = columns.begin; j < columns.end; j += kLanes<T>) {
            Largest<T> largest;
            for_each_window_row(axis, o0, o1, [&](int64_t row) {
              largest.offer(load_first(x + row + j, columns.end - j, -T(__builtin_inf())),
                            static_cast<LaneInteger<T>>(row - first));
            });
            store(&line[j], largest.value);
            __builtin_memcpy(&row_of[j], &largest.offset, sizeof largest.offset);
          }
          for (int64_t o = 0; o < axis[2].out; o += kLanes<T>) {
            Vec<T> value = broadcast<T>(-T(__builtin_inf()));
            Mask<T> row = {}, column = Mask<T>{} - 1;  // none met
            columns.each_tap(o, [&](const Tap<T>& tap) {
              const Vec<T> v = columns.load(line.get(), tap);
              const Mask<T> own = (Mask<T>)columns.load(row_of.get(), tap);
              const Mask<T> equal = (v == value) | ((v != v) & (value != value));
              const Mask<T> larger = ~(v <= value) & (value == value) & ~equal;
              const Mask<T> better = tap.met & ((column < 0) | larger | (equal & (own < row)));
              value = better ? v : value;
              row = better ? own : row, column = better ? tap.column : column;
            });
            store_first(args.result + at + o, axis[2].out - o, value);
            store_index<T>(args.index + at + o, axis[2].out - o, row + column, first, false);
          }
          for (int64_t o = 0; o < axis[2].out; ++o)
            if (axis[2].count[o] == 0) args.index[at + o] = 0;
        });
      });
}

inline constexpr int64_t kFewPlaces = 20;  // likewise

// The same for windows of one row and columns that follow each other.
template <class T>
static void largest_of_runs(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row_group(args.planes, axis[0].out, axis[1].out, row_work(args), large_input(args),
                     [&](const auto& rows) {
                       rows([&](int64_t plane, int64_t o0, int64_t o1) {
                         const T* x = args.x + plane * args.in_size();
                         const int64_t row = window_row(axis, o0, o1, 0, 0);
                         const int64_t at =
                             ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
                         for (int64_t o = 0; o < axis[2].out; ++o) {
                           const int64_t from = row + axis[2].start[o];
                           const int64_t best = from + first_largest(x + from, axis[2].count[o]);
                           args.result[at + o] = x[best], args.index[at + o] = best;
                         }
                       });
                     });
}

LAMINA_CPU_NAMESPACE_END
