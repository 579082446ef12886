// Max and average pooling and max unpooling, forward and backward (ops/pool.h).
//
// Method        each output walks its window; each input gradient gathers the outputs that hold it.
// Partitioning  rows of planes, in groups of about kTaskElements results.
// Numerics      sums in window order (forward) or output order (backward).
// Floor         one read of x and one write of y (and of the 8-byte indices).
#include "ops/pool.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PoolArgs;
using ops::PoolAxis;
using ops::UnpoolArgs;

static constexpr int64_t kTaskElements = 4096;

// Calls body(plane, a, b) for each row (a, b) of each plane.
template <class Body>
static void for_each_row(int64_t planes, int64_t rows0, int64_t rows1, int64_t width, Body body) {
  const int64_t grain = max_of<int64_t>(1, kTaskElements / max_of<int64_t>(1, width));
  parallel_ranges(planes * rows0 * rows1, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      body(row / (rows0 * rows1), row / rows1 % rows0, row % rows1);
  });
}

// Calls body(offset of an input row in its plane) for each row of the window of output (o0, o1).
template <class Body>
LAMINA_INLINE void for_each_window_row(const PoolAxis* axis, int64_t o0, int64_t o1, Body body) {
  for (int64_t t0 = 0; t0 < axis[0].count[o0]; ++t0)
    for (int64_t t1 = 0; t1 < axis[1].count[o1]; ++t1)
      body(((axis[0].start[o0] + t0 * axis[0].step) * axis[1].in + axis[1].start[o1] +
            t1 * axis[1].step) *
           axis[2].in);
}

template <class T>
void max_pool_fprop_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row(args.planes, axis[0].out, axis[1].out, axis[2].out,
               [&](int64_t plane, int64_t o0, int64_t o1) {
                 const T* x = args.x + plane * args.in_size();
                 const int64_t at = ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
                 for (int64_t o2 = 0; o2 < axis[2].out; ++o2) {
                   T best = -T(__builtin_inf());
                   int64_t index = -1;
                   const int64_t start = axis[2].start[o2], count = axis[2].count[o2],
                                 step = axis[2].step;
                   for_each_window_row(axis, o0, o1, [&](int64_t row) {
                     for (int64_t t = 0, i = row + start; t < count; ++t, i += step) {
                       // `!(x <= best)` holds for a larger x and for the first NaN; a NaN best is
                       // kept.
                       const bool better = index < 0 || (!(x[i] <= best) && best == best);
                       best = better ? x[i] : best;
                       index = better ? i : index;
                     }
                   });
                   args.result[at + o2] = best;
                   args.index[at + o2] = index < 0 ? 0 : index;
                 }
               });
}

template <class T>
void avg_pool_fprop_windows(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  for_each_row(args.planes, axis[0].out, axis[1].out, axis[2].out,
               [&](int64_t plane, int64_t o0, int64_t o1) {
                 const T* x = args.x + plane * args.in_size();
                 T* y = args.result + ((plane * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
                 for (int64_t o2 = 0; o2 < axis[2].out; ++o2) {
                   T sum = 0;
                   for_each_window_row(axis, o0, o1, [&](int64_t row) {
                     for (int64_t t = 0, i = row + axis[2].start[o2]; t < axis[2].count[o2];
                          ++t, i += axis[2].step)
                       sum += x[i];
                   });
                   y[o2] = sum / T(axis[0].divisor[o0] * axis[1].divisor[o1] * axis[2].divisor[o2]);
                 }
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
