// resample: a sparse matrix along one axis (ops/resample.h).
//
// Method        a row of results is a weighted sum of rows of x, whole vectors along the inner
// axes;
//               along the innermost axis itself each result gathers its taps.
// Partitioning  groups of rows of about kTaskElements results.
// Floor         one read of x for every tap whose row left the cache, one write of y.
#include "ops/resample.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ResampleArgs;

inline constexpr int64_t kTaskElements = 16384;

// result[width] = sum of the taps' rows of x, each `width` long.
template <class T>
static void weighted_rows(const ResampleArgs<T>& args, const T* x, int64_t o, T* result) {
  const int64_t begin = args.begin[o], end = args.begin[o + 1], width = args.inner;
  int64_t i = 0;
  for (; i + kLanes<T> <= width; i += kLanes<T>) {
    Vec<T> sum = {};
    for (int64_t t = begin; t < end; ++t)
      sum += static_cast<T>(args.weight[t]) * load(x + args.index[t] * width + i);
    store(result + i, sum);
  }
  for (; i < width; ++i) {
    T sum = 0;
    for (int64_t t = begin; t < end; ++t)
      sum += static_cast<T>(args.weight[t]) * x[args.index[t] * width + i];
    result[i] = sum;
  }
}

template <class T>
void resample_fprop_axis(const ResampleArgs<T>& args) {
  const int64_t grain = max_of<int64_t>(kTaskElements / max_of<int64_t>(args.inner, 1), 1);
  parallel_ranges(args.outer * args.out, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      weighted_rows(args, args.x + row / args.out * args.in * args.inner, row % args.out,
                    args.result + row * args.inner);
  });
}

LAMINA_INSTANTIATE(resample_fprop_axis, ResampleArgs)

LAMINA_CPU_NAMESPACE_END
