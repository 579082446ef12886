// Max and average pooling (ops/pool.h).
//
// Method        stride 1 or 2: rows are folded into whole vectors of columns, and these into
//               windows by two-source permutes (cpu/pool_fold.h), or short rows as one line
//               (cpu/pool_lines.h). Where the places of maxima are asked for, a vector of outputs
//               takes its taps one by one in the order of the window.
//               Strides up to 16, and more taps: cpu/pool_phases.h; others: cpu/pool_columns.h.
//               Whole rows are one run of memory; averages of whole planes sum the lanes of a
//               vector of planes together. Rows are fetched ahead: the hardware does not see them
//               coming.
// Partitioning  rows of planes, in groups of about kPoolTask elements.
// Numerics      sums down the rows, then across the columns; whole rows in vectors, whose lanes are
//               summed as a fixed tree.
// Floor         one read of x and one write of y (and of the 8-byte indices).
#include <type_traits>

#include "cpu/pool_columns.h"
#include "cpu/pool_lines.h"
#include "cpu/pool_phases.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Windows of whole rows that follow each other in memory.
static bool whole_rows(const PoolAxis* axis) {
  return axis[2].out == 1 && axis[2].count[0] == axis[2].in &&
         (axis[2].in == 1 || axis[2].step == 1) && axis[1].step == 1;
}

// A row of outputs, whose windows have the `count` rows; `skipped` tells for each how far its
// window begins before the row. ROWS is 0 where their number is known at run time only.
template <class T, int STRIDE, int TAPS, int ROWS>
static void max_row(const PoolArgs<T>& args, const RegularColumns& columns,
                    const Taps<T, STRIDE, TAPS, false>& first, const LaneInteger<T>* skipped,
                    const int64_t* rows, int64_t count, const T* x, int64_t at, bool streamed) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in, out = axis[2].out, step = axis[2].step;
  prefetch_line(x + rows[count - 1] + kAhead / sizeof(T), STRIDE * in);
  for (int64_t o = 0; o < out; o += kLanes<T>) {
    const int64_t column = columns.base + o * STRIDE;
    auto offer = [&](auto& largest, const auto& windows) __attribute__((always_inline)) {
      auto take = [&](int64_t r) __attribute__((always_inline)) {
        offer_row(largest, windows, x + rows[r], columns.taps, step,
                  static_cast<LaneInteger<T>>(rows[r] - rows[0]));
      };
      if constexpr (ROWS > 0) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) take(r);
      } else {
        for (int64_t r = 0; r < count; ++r) take(r);
      }
    };
    constexpr T kLeast = -T(__builtin_inf());
    auto find = [&](auto& largest) __attribute__((always_inline)) {
      if (column >= 0 && column + (columns.taps - 1) * step + STRIDE * kLanes<T> <= in) {
        return offer(largest, Taps<T, STRIDE, TAPS, true>(column, in, kLeast));
      }
      __builtin_memcpy(&largest.offset, skipped + o, sizeof largest.offset);
      if (o == 0)
        offer(largest, first);
      else
        offer(largest, Taps<T, STRIDE, TAPS, false>(column, in, kLeast));
    };
    auto write = [&](const auto& largest) __attribute__((always_inline)) {
      store_result(args.result + at + o, out - o, largest.value, streamed);
      store_index<T>(args.index + at + o, out - o, largest.offset + STRIDE * lane_numbers<T>(),
                     rows[0] + column, streamed);
    };
    find_largest<LargestOrdered<T>, Largest<T>>(find, write);
  }
}

template <class T>
static void max_pool_regular(const PoolArgs<T>& args, const RegularColumns& columns) {
  const PoolAxis* axis = args.axis;
  const bool streamed = is_streamed<double>(args.planes * args.out_size());  // the indices
  const bool large = streamed || large_input(args);
  for_each_row_group(
      args.planes, axis[0].out, axis[1].out, row_work(args), large, [&](const auto& rows) {
        Scratch<LaneInteger<T>> skipped(axis[2].out + kLanes<T>);
        for (int64_t o = 0; o < axis[2].out + kLanes<T>; ++o)
          skipped[o] = o < axis[2].out ? static_cast<LaneInteger<T>>(
                                             axis[2].start[o] - columns.base - o * columns.stride)
                                       : 0;
        with_constants(columns, axis[2].step, [&](auto stride, auto taps) {
          const Taps<T, stride, taps, false> first(columns.base, axis[2].in, -T(__builtin_inf()));
          rows([&](int64_t plane, int64_t o0, int64_t o1) {
            int64_t places[kMaxRows], count = 0;
            for_each_window_row(axis, o0, o1, [&](int64_t row) { places[count++] = row; });
            const auto take =
                count == taps ? max_row<T, stride, taps, taps> : max_row<T, stride, taps, 0>;
            take(args, columns, first, skipped.get(), places, count,
                 args.x + plane * args.in_size(),
                 plane * args.out_size() + (o0 * axis[1].out + o1) * axis[2].out, streamed);
          });
        });
      });
}

template <class T>
static void max_pool_whole_rows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row_group(
      args.planes, axis[0].out, axis[1].out, row_work(args), large_input(args),
      [&](const auto& rows) {
        rows([&](int64_t plane, int64_t o0, int64_t o1) {
          const T* x = args.x + plane * args.in_size();
          const int64_t run = axis[1].count[o1] * axis[2].in;
          int64_t best = -1;
          for (int64_t t0 = 0; t0 < axis[0].count[o0] && run > 0; ++t0) {
            const int64_t row = window_row(axis, o0, o1, t0, 0),
                          at = row + first_largest(x + row, run);
            if (best < 0 || x[at] > x[best] || (x[at] != x[at] && x[best] == x[best])) best = at;
          }
          const int64_t to = (plane * axis[0].out + o0) * axis[1].out + o1;
          args.result[to] = best < 0 ? -T(__builtin_inf()) : x[best];
          if (args.index) args.index[to] = max_of<int64_t>(best, 0);
        });
      });
}

// Whether all windows have one row.
template <class T>
static bool single_rows(const PoolArgs<T>& args) {
  for (int a = 0; a < 2; ++a)
    for (int64_t o = 0; o < args.axis[a].out; ++o)
      if (args.axis[a].count[o] != 1) return false;
  return true;
}

template <class T>
void max_pool_fprop_windows(const PoolArgs<T>& args) {
  const RegularColumns columns(args.axis[2], kMostStride);
  if (small_plane(args) && whole_rows(args.axis)) return max_pool_whole_rows(args);
  const auto as_it_is = [](Vec<T> largest, auto...) { return largest; };
  if (!args.index && fold_lines<T, Maximum<T>>(args, columns, as_it_is)) return;
  if (!args.index && fold_windows<T, Maximum<T>>(args, columns, as_it_is)) return;
  if (!args.index && fold_phases<T, Maximum<T>>(args, columns, as_it_is)) return;
  if (!args.index) {
    if (few_rows(args) && are_runs(args.axis[2], kFewColumns))
      return fold_runs<T, Maximum<T>>(args, as_it_is);
    return fold_taps<T, Maximum<T>>(args, as_it_is);
  }
  if (small_plane(args) && columns.holds && few_rows(args)) {
    const bool single = single_rows(args), few = columns.taps < kFewTaps;
    if (columns.stride <= 2 && (single || few)) return max_pool_regular(args, columns);
    if (single) return largest_of_phases(args, columns);
    return largest_of_folded_phases(args, columns);
  }
  if (single_rows(args) && are_runs(args.axis[2], kFewPlaces)) return largest_of_runs(args);
  largest_taps(args);
}

// The sum of a run of memory, lane by lane.
template <class T>
static Vec<T> run_sums(const T* x, int64_t n) {
  Vec<T> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= n; i += 4 * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const T* at = x + i + c * kLanes<T>;
      __builtin_prefetch(at + kAhead / static_cast<int64_t>(sizeof(T)));
      sums[c] += load(at);
    }
  for (; i < n; i += kLanes<T>) sums[0] += load_first(x + i, n - i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <class T>
static bool avg_pool_fold(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const RegularColumns columns(axis[2], kMostStride);
  if (one_divisor(axis)) {
    const T divide = T(axis[0].divisor[0] * axis[1].divisor[0] * axis[2].divisor[0]);
    if (fold_lines<T, Sum<T>>(args, columns, [&](Vec<T> sum) { return sum / divide; })) return true;
  }
  Scratch<T> divisor(axis[2].out + kLanes<T>);
  for (int64_t o = 0; o < axis[2].out + kLanes<T>; ++o)
    divisor[o] = T(o < axis[2].out ? axis[2].divisor[o] : 1);
  const auto average = [&](Vec<T> sum, int64_t o0, int64_t o1, int64_t o) {
    return sum / (T(axis[0].divisor[o0] * axis[1].divisor[o1]) * load(&divisor[o]));
  };
  return fold_windows<T, Sum<T>>(args, columns, average) ||
         fold_phases<T, Sum<T>>(args, columns, average);
}

template <class T>
static void avg_pool_whole_rows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row_group(args.planes, axis[0].out, axis[1].out, row_work(args), large_input(args),
                     [&](const auto& rows) {
                       rows([&](int64_t plane, int64_t o0, int64_t o1) {
                         const T* x = args.x + plane * args.in_size();
                         T sum = 0;
                         for (int64_t t0 = 0; t0 < axis[0].count[o0]; ++t0)
                           sum += sum_lanes<T>(run_sums(x + window_row(axis, o0, o1, t0, 0),
                                                        axis[1].count[o1] * axis[2].in));
                         args.result[(plane * axis[0].out + o0) * axis[1].out + o1] =
                             sum /
                             T(axis[0].divisor[o0] * axis[1].divisor[o1] * axis[2].divisor[0]);
                       });
                     });
}

// Sums of a vector of planes of `size` elements, the lanes of all summed together. WHOLE is how
// many whole vectors a plane has, or -1 where it has many.
template <class T, int WHOLE>
LAMINA_INLINE Vec<T> plane_sums(const T* x, int64_t size, int64_t count, bool far) {
  const Lanes<T> rest(0, size - WHOLE * kLanes<T>);
  Vec<T> lanes[kLanes<T>];
#pragma GCC unroll 16
  for (int k = 0; k < kLanes<T>; ++k) {
    const T* plane = x + k * size;
    if (far && WHOLE >= 0) prefetch_line(plane + kAhead / static_cast<int64_t>(sizeof(T)), size);
    if (k >= count) {
      lanes[k] = Vec<T>{};
    } else if constexpr (WHOLE < 0) {
      lanes[k] = run_sums(plane, size);
    } else {
      lanes[k] = rest.load(plane + WHOLE * kLanes<T>);
#pragma GCC unroll 4
      for (int v = 0; v < WHOLE; ++v) lanes[k] += load(plane + v * kLanes<T>);
    }
  }
  return fold_each<T>(lanes, [](Vec<T> a, Vec<T> b) { return Sum<T>::join(a, b); });
}

template <class T, int WHOLE>
static void average_planes(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t size = args.in_size();
  const T divide = T(axis[0].divisor[0] * axis[1].divisor[0] * axis[2].divisor[0]);
  const int64_t grain = ceil_div(kPoolTask, kLanes<T> * size) * kLanes<T>;
  const bool far = large_input(args);
  parallel_blocks(args.planes, grain, far, [&](int64_t begin, int64_t end) {
    int64_t plane = begin;
    auto take = [&](int64_t count) {
      const Vec<T> sums = plane_sums<T, WHOLE>(args.x + plane * size, size, count, far);
      store_first<T>(args.result + plane, count, sums / divide);
    };
    for (; plane + kLanes<T> <= end; plane += kLanes<T>) take(kLanes<T>);
    if (plane < end) take(end - plane);
  });
}

template <class T>
static void avg_pool_whole_planes(const PoolArgs<T>& args) {
  const int64_t whole = args.in_size() / kLanes<T>;
  if (whole == 3) return average_planes<T, 3>(args);  // 7 x 7 in vectors of 16
  average_planes<T, -1>(args);
}

// Elements in the first window.
template <class T>
static int64_t window_size(const PoolArgs<T>& args) {
  return args.axis[0].count[0] * args.axis[1].count[0] * args.axis[2].count[0];
}

template <class T>
void avg_pool_fprop_windows(const PoolArgs<T>& args) {
  if (whole_rows(args.axis))
    return args.out_size() == 1 && args.in_size() == window_size(args) ? avg_pool_whole_planes(args)
                                                                       : avg_pool_whole_rows(args);
  if (avg_pool_fold(args)) return;
  if (few_rows(args) && are_runs(args.axis[2], kFewColumns))
    return fold_runs<T, Sum<T>>(args, [](Vec<T> sum, Vec<T> divisor) { return sum / divisor; });
  const PoolAxis* axis = args.axis;
  Scratch<T> divisor(axis[2].out + kLanes<T>);
  for (int64_t o = 0; o < axis[2].out + kLanes<T>; ++o)
    divisor[o] = T(o < axis[2].out ? axis[2].divisor[o] : 1);
  fold_taps<T, Sum<T>>(args, [&](Vec<T> sum, int64_t o0, int64_t o1, int64_t o) {
    return sum / (T(axis[0].divisor[o0] * axis[1].divisor[o1]) * load(&divisor[o]));
  });
}

LAMINA_INSTANTIATE(max_pool_fprop_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_fprop_windows, PoolArgs)

LAMINA_CPU_NAMESPACE_END
