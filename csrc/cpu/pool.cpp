// Max and average pooling and max unpooling, forward and backward (ops/pool.h).
//
// Method        a row of outputs first reduces its windows' rows, whole vectors along the columns,
//               then each output its few columns; each input gradient gathers the outputs that hold
//               it.
// Partitioning  rows of planes, in groups of about kTaskElements results.
// Numerics      sums down the rows, then across the columns (forward); in output order (backward).
// Floor         one read of x and one write of y (and of the 8-byte indices).
#include "ops/pool.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PoolArgs;
using ops::PoolAxis;
using ops::UnpoolArgs;

static constexpr int64_t kTaskElements = 4096;

// Calls group(rows) for each task, where rows(body) calls body(plane, a, b) for each of its rows.
template <class Group>
static void for_each_row_group(int64_t planes, int64_t rows0, int64_t rows1, int64_t width,
                               const Group& group) {
  const int64_t grain = max_of<int64_t>(1, kTaskElements / max_of<int64_t>(1, width));
  parallel_ranges(planes * rows0 * rows1, grain, [&](int64_t begin, int64_t end) {
    group([&](const auto& body) {
      for (int64_t row = begin; row < end; ++row)
        body(row / (rows0 * rows1), row / rows1 % rows0, row % rows1);
    });
  });
}

// Calls body(plane, a, b) for each row (a, b) of each plane.
template <class Body>
static void for_each_row(int64_t planes, int64_t rows0, int64_t rows1, int64_t width,
                         const Body& body) {
  for_each_row_group(planes, rows0, rows1, width, [&](const auto& rows) { rows(body); });
}

// Where the row of x at taps (t0, t1) of the window of output (o0, o1) starts in its plane.
LAMINA_INLINE int64_t window_row(const PoolAxis* axis, int64_t o0, int64_t o1, int64_t t0,
                                 int64_t t1) {
  const int64_t depth = axis[0].start[o0] + t0 * axis[0].step;
  return (depth * axis[1].in + axis[1].start[o1] + t1 * axis[1].step) * axis[2].in;
}

// The columns that some window of the innermost axis reads.
struct Columns {
  int64_t begin, end;

  explicit Columns(const PoolAxis& axis) : begin(axis.in), end(0) {
    for (int64_t o = 0; o < axis.out; ++o) {
      if (axis.count[o] == 0) continue;
      begin = min_of(begin, axis.start[o]);
      end = max_of(end, axis.start[o] + (axis.count[o] - 1) * axis.step + 1);
    }
    begin = min_of(begin, end);
  }
};

// Calls body(tap, row of x) for each row of the window of output (o0, o1), in order.
template <class T, class Body>
LAMINA_INLINE void for_each_window_row(const PoolAxis* axis, const T* x, int64_t o0, int64_t o1,
                                       const Body& body) {
  int64_t tap = 0;
  for (int64_t t0 = 0; t0 < axis[0].count[o0]; ++t0)
    for (int64_t t1 = 0; t1 < axis[1].count[o1]; ++t1, ++tap)
      body(tap, x + window_row(axis, o0, o1, t0, t1));
}

// Maximum and its tap row down each column of a window's rows; NaN wins, the first of equals stays.
template <class T>
static void column_maxima(const PoolAxis* axis, const T* x, int64_t o0, int64_t o1,
                          const Columns& columns, T* best, LaneInteger<T>* tap_row) {
  for (int64_t j = columns.begin; j < columns.end; j += kLanes<T>) {
    const int64_t count = min_of<int64_t>(kLanes<T>, columns.end - j);
    Vec<T> largest = {};
    Mask<T> winner = {};
    for_each_window_row(axis, x, o0, o1, [&](int64_t tap, const T* row) {
      const Vec<T> value = count == kLanes<T> ? load(row + j) : load_first(row + j, count);
      if (tap == 0) {
        largest = value;
        return;
      }
      const Mask<T> better = ~(value <= largest) & (largest == largest);
      largest = better ? value : largest;
      winner = better ? Mask<T>{} + static_cast<LaneInteger<T>>(tap) : winner;
    });
    store(best + j, largest);  // the buffers have room for a whole vector
    __builtin_memcpy(tap_row + j, &winner, sizeof winner);
  }
}

template <class T>
void max_pool_fprop_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const Columns columns(axis[2]);
  const int64_t room = axis[2].in + kLanes<T>;
  for_each_row_group(args.planes, axis[0].out, axis[1].out, axis[2].out, [&](const auto& rows) {
    Scratch<T> best(room);
    Scratch<LaneInteger<T>> tap_row(room);
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const T* x = args.x + plane * args.in_size();
      const int64_t at = ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
      const bool empty = axis[0].count[o0] == 0 || axis[1].count[o1] == 0;
      if (!empty) column_maxima(axis, x, o0, o1, columns, best.get(), tap_row.get());
      for (int64_t o2 = 0; o2 < axis[2].out; ++o2) {
        const int64_t start = axis[2].start[o2], count = empty ? 0 : axis[2].count[o2];
        T largest = -T(__builtin_inf());
        int64_t row = 0, column = -1;
        for (int64_t t = 0, i = start; t < count; ++t, i += axis[2].step) {
          const T value = best[i];
          // Across columns the first in the order of rows wins, not the first met.
          const bool equal = value == largest || (value != value && largest != largest);
          const bool better =
              column < 0 || (equal ? tap_row[i] < row : !(value <= largest) && largest == largest);
          largest = better ? value : largest;
          row = better ? tap_row[i] : row, column = better ? i : column;
        }
        args.result[at + o2] = largest;
        const int64_t taps1 = max_of<int64_t>(axis[1].count[o1], 1);
        args.index[at + o2] =
            column < 0 ? 0 : window_row(axis, o0, o1, row / taps1, row % taps1) + column;
      }
    });
  });
}

template <class T>
void avg_pool_fprop_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const Columns columns(axis[2]);
  const int64_t room = axis[2].in + kLanes<T>;
  for_each_row_group(args.planes, axis[0].out, axis[1].out, axis[2].out, [&](const auto& rows) {
    Scratch<T> sums(room);
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const T* x = args.x + plane * args.in_size();
      T* y = args.result + ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
      for (int64_t j = columns.begin; j < columns.end; j += kLanes<T>) {
        const int64_t count = min_of<int64_t>(kLanes<T>, columns.end - j);
        Vec<T> sum = {};
        for_each_window_row(axis, x, o0, o1, [&](int64_t, const T* row) {
          sum += count == kLanes<T> ? load(row + j) : load_first(row + j, count);
        });
        store(&sums[j], sum);
      }
      for (int64_t o2 = 0; o2 < axis[2].out; ++o2) {
        T sum = 0;
        for (int64_t t = 0, i = axis[2].start[o2]; t < axis[2].count[o2]; ++t, i += axis[2].step)
          sum += sums[i];
        y[o2] = sum / T(axis[0].divisor[o0] * axis[1].divisor[o1] * axis[2].divisor[o2]);
      }
    });
  });
}

// Calls body(o0, o1, row of outputs) for each row of outputs whose windows hold input row (i0, i1).
template <class Body>
LAMINA_INLINE void for_each_covering_row(const PoolAxis* axis, int64_t i0, int64_t i1, Body body) {
  for (int64_t o0 = axis[0].first[i0]; o0 < axis[0].last[i0]; ++o0) {
    if (!axis[0].covers(o0, i0)) continue;
    for (int64_t o1 = axis[1].first[i1]; o1 < axis[1].last[i1]; ++o1)
      if (axis[1].covers(o1, i1)) body(o0, o1, (o0 * axis[1].out + o1) * axis[2].out);
  }
}

template <class T>
void max_pool_dgrad_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row(args.planes, axis[0].in, axis[1].in, axis[2].in,
               [&](int64_t plane, int64_t i0, int64_t i1) {
                 const T* grad_y = args.grad_y + plane * args.out_size();
                 const int64_t* index = args.index + plane * args.out_size();
                 const int64_t at = (i0 * axis[1].in + i1) * axis[2].in;
                 T* grad_x = args.result + plane * args.in_size() + at;
                 for (int64_t i2 = 0; i2 < axis[2].in; ++i2) {
                   T sum = 0;
                   for_each_covering_row(axis, i0, i1, [&](int64_t, int64_t, int64_t row) {
                     for (int64_t o = row + axis[2].first[i2]; o < row + axis[2].last[i2]; ++o)
                       sum += index[o] == at + i2 ? grad_y[o] : T(0);
                   });
                   grad_x[i2] = sum;
                 }
               });
}

template <class T>
void avg_pool_dgrad_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row(
      args.planes, axis[0].in, axis[1].in, axis[2].in, [&](int64_t plane, int64_t i0, int64_t i1) {
        const T* grad_y = args.grad_y + plane * args.out_size();
        T* grad_x =
            args.result + (plane * axis[0].in + i0) * axis[1].in * axis[2].in + i1 * axis[2].in;
        for (int64_t i2 = 0; i2 < axis[2].in; ++i2) {
          T sum = 0;
          for_each_covering_row(axis, i0, i1, [&](int64_t o0, int64_t o1, int64_t row) {
            const int64_t rows = axis[0].divisor[o0] * axis[1].divisor[o1];
            for (int64_t o2 = axis[2].first[i2]; o2 < axis[2].last[i2]; ++o2)
              if (axis[2].covers(o2, i2)) sum += grad_y[row + o2] / T(rows * axis[2].divisor[o2]);
          });
          grad_x[i2] = sum;
        }
      });
}

template <class T>
void max_unpool_fprop_indices(const UnpoolArgs<T>& args) {
  if ((*args.bad = first_bad_index(args)) >= 0) return;
  parallel_for(args.planes, [&](int64_t plane) {
    T* y = args.result + plane * args.out_size;
    for (int64_t i = 0; i < args.out_size; ++i) y[i] = 0;
    for (int64_t i = plane * args.in_size; i < (plane + 1) * args.in_size; ++i)
      y[args.index[i]] = args.source[i];
  });
}

template <class T>
void max_unpool_dgrad_indices(const UnpoolArgs<T>& args) {
  if ((*args.bad = first_bad_index(args)) >= 0) return;
  parallel_for(args.planes, [&](int64_t plane) {
    const T* grad_y = args.source + plane * args.out_size;
    for (int64_t i = plane * args.in_size; i < (plane + 1) * args.in_size; ++i)
      args.result[i] = grad_y[args.index[i]];
  });
}

LAMINA_INSTANTIATE(max_pool_fprop_windows, PoolArgs)
LAMINA_INSTANTIATE(max_pool_dgrad_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_fprop_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_dgrad_windows, PoolArgs)
LAMINA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

LAMINA_CPU_NAMESPACE_END
