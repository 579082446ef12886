// resample: a sparse matrix along one axis (ops/resample.h).
//
// Method        a thread sums the taps of one result, of sixteen bytes of results along the inner
//               axes where their size allows, in outer plane after outer plane.
// Partitioning  device/plane_grid.h: a plane's results, then groups of planes.
// Numerics      weights rounded to the arithmetic type, sums in the order of the taps.
// Floor         one read of x for every tap whose row left the caches, one write of y.
#include "cuda/device/plane_grid.h"
#include "cuda/device/vector.h"
#include "cuda/instantiate.h"
#include "ops/resample.h"

namespace lamina::cuda {

using ops::ResampleArgs;

static constexpr int kThreads = PlaneGrid<int, 1>::kThreads;

// How many planes a thread serves at once: four loads in flight, two wide ones; one where a plane
// needs 64-bit offsets.
template <class Offset, int N>
inline constexpr int kAtOnce = sizeof(Offset) > 4 ? 1
                               : N > 1            ? 2
                                                  : 4;
template <class Offset, int N>
using ResultGrid = PlaneGrid<Offset, kAtOnce<Offset, N>>;

// N results along the inner axes a thread.
template <class T, class Offset, int N>
__global__ void __launch_bounds__(kThreads, 3)
    resample_kernel(const ResampleArgs<T> args, const ResultGrid<Offset, N> grid) {
  constexpr int kPlanes = kAtOnce<Offset, N>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const Offset width = static_cast<Offset>(args.inner / N), o = walk.position / width;
  const Offset inner = (walk.position - o * width) * N;
  const int64_t begin = args.begin[o], end = args.begin[o + 1];
  for (; walk.more(); walk.next()) {
    const T* x[kPlanes];
    Acc<T> sum[kPlanes][N];
    for (int k = 0; k < kPlanes; ++k) {
      x[k] = args.x + walk.plane(k) * args.in * args.inner + inner;
      for (int i = 0; i < N; ++i) sum[k][i] = 0;
    }
    for (int64_t t = begin; t < end; ++t) {
      const Acc<T> weight(args.weight[t]);
      const int64_t row = args.index[t] * args.inner;
      for (int k = 0; k < kPlanes; ++k) {
        const Vector<T, N> value = load<T, N>(x[k] + row);
        for (int i = 0; i < N; ++i) sum[k][i] += weight * widen(value.element[i]);
      }
    }
    for (int k = 0; k < kPlanes; ++k) {
      if (!walk.has(k)) continue;
      Vector<T, N> result;
      for (int i = 0; i < N; ++i) result.element[i] = narrow<T>(sum[k][i]);
      store<T, N>(args.result + (walk.plane(k) * args.out + o) * args.inner + inner, result);
    }
  }
}

template <class T, class Offset, int N>
static void run_resample(const ResampleArgs<T>& args) {
  const ResultGrid<Offset, N> grid(args.out * (args.inner / N), args.outer);
  launch(resample_kernel<T, Offset, N>, grid.size(), kThreads, 0, args, grid);
}

template <class T>
void resample_fprop_axis(const ResampleArgs<T>& args) {
  const bool wide = args.inner % kWide<T> == 0 && is_wide(args.x, args.result);
  if (!fit_int(args.out * args.inner, args.outer))
    run_resample<T, int64_t, 1>(args);
  else if (wide)
    run_resample<T, int, kWide<T>>(args);
  else
    run_resample<T, int, 1>(args);
}

LAMINA_CUDA_INSTANTIATE(resample_fprop_axis, ResampleArgs)

}  // namespace lamina::cuda
