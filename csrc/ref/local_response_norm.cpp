// local_response_norm, reference: the formulas of ops/local_response_norm.h in double.
#include "ops/local_response_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

using ops::LocalResponseNormArgs;

// Sum of value(flat position) over the window around (i0, i1, i2), or over the positions whose
// windows hold it.
template <class T, class Value>
double window_sum(const LocalResponseNormArgs<T>& args, int64_t i0, int64_t i1, int64_t i2,
                  bool holding, Value value) {
  const int64_t at[3] = {i0, i1, i2};
  int64_t low[3], high[3];
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t before = args.window[axis] / 2, after = (args.window[axis] - 1) / 2;
    low[axis] = std::max<int64_t>(at[axis] - (holding ? after : before), 0);
    high[axis] = std::min(at[axis] + (holding ? before : after), args.size[axis] - 1);
  }
  double sum = 0;
  for (int64_t a = low[0]; a <= high[0]; ++a)
    for (int64_t b = low[1]; b <= high[1]; ++b)
      for (int64_t c = low[2]; c <= high[2]; ++c)
        sum += value((a * args.size[1] + b) * args.size[2] + c);
  return sum;
}

template <class T, class Body>
void for_each_position(const LocalResponseNormArgs<T>& args, Body body) {
  for (int64_t slab = 0; slab < args.slabs; ++slab)
    for (int64_t i0 = 0; i0 < args.size[0]; ++i0)
      for (int64_t i1 = 0; i1 < args.size[1]; ++i1)
        for (int64_t i2 = 0; i2 < args.size[2]; ++i2)
          body(slab * args.slab(), (i0 * args.size[1] + i1) * args.size[2] + i2, i0, i1, i2);
}

// d of a position.
template <class T>
double scale(const LocalResponseNormArgs<T>& args, int64_t slab, int64_t i0, int64_t i1,
             int64_t i2) {
  const T* x = args.x + slab;
  return args.k + args.alpha * window_sum(args, i0, i1, i2, false, [&](int64_t j) {
                    return static_cast<double>(x[j]) * x[j];
                  });
}

}  // namespace

template <class T>
void local_response_norm_fprop_windows(const LocalResponseNormArgs<T>& args) {
  for_each_position(args, [&](int64_t slab, int64_t at, int64_t i0, int64_t i1, int64_t i2) {
    const double d = scale(args, slab, i0, i1, i2);
    args.result[slab + at] = static_cast<T>(args.x[slab + at] * std::pow(d, -args.beta));
  });
}

template <class T>
void local_response_norm_dgrad_windows(const LocalResponseNormArgs<T>& args) {
  std::vector<double> scales(static_cast<size_t>(args.slabs * args.slab()));
  for_each_position(args, [&](int64_t slab, int64_t at, int64_t i0, int64_t i1, int64_t i2) {
    scales[static_cast<size_t>(slab + at)] = scale(args, slab, i0, i1, i2);
  });
  for_each_position(args, [&](int64_t slab, int64_t at, int64_t i0, int64_t i1, int64_t i2) {
    const T *x = args.x + slab, *g = args.grad_y + slab;
    const double *d = scales.data() + slab, beta = args.beta;
    const double sum = window_sum(args, i0, i1, i2, true, [&](int64_t j) {
      return static_cast<double>(g[j]) * x[j] * std::pow(d[j], -beta - 1);
    });
    args.result[slab + at] = static_cast<T>(
        g[at] * std::pow(d[at], -beta) - 2 * static_cast<double>(args.alpha) * beta * x[at] * sum);
  });
}

LAMINA_INSTANTIATE(local_response_norm_fprop_windows, LocalResponseNormArgs)
LAMINA_INSTANTIATE(local_response_norm_dgrad_windows, LocalResponseNormArgs)

}  // namespace lamina::ref
