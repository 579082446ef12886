// resample and permute, reference: the formulas of ops/resample.h and ops/permute.h.
#include "ops/resample.h"

#include "ops/instantiate.h"
#include "ops/permute.h"

namespace lamina::ref {

using ops::PermuteArgs;
using ops::ResampleArgs;
using ops::ResamplePlanesArgs;

template <class T>
void resample_fprop_axis(const ResampleArgs<T>& args) {
  for (int64_t outer = 0; outer < args.outer; ++outer)
    for (int64_t o = 0; o < args.out; ++o)
      for (int64_t inner = 0; inner < args.inner; ++inner) {
        double sum = 0;
        for (int64_t t = args.begin[o]; t < args.begin[o + 1]; ++t)
          sum +=
              args.weight[t] *
              static_cast<double>(args.x[(outer * args.in + args.index[t]) * args.inner + inner]);
        args.result[(outer * args.out + o) * args.inner + inner] = static_cast<T>(sum);
      }
}

template <class T>
void resample_planes_fprop_axes(const ResamplePlanesArgs<T>& args) {
  const ops::ResampleTable &rows = args.rows, &columns = args.columns;
  for (int64_t outer = 0; outer < args.outer; ++outer)
    for (int64_t o = 0; o < rows.out; ++o)
      for (int64_t p = 0; p < columns.out; ++p) {
        double sum = 0;
        for (int64_t t = rows.begin[o]; t < rows.begin[o + 1]; ++t)
          for (int64_t u = columns.begin[p]; u < columns.begin[p + 1]; ++u)
            sum += rows.weight[t] * columns.weight[u] *
                   static_cast<double>(
                       args.x[(outer * rows.in + rows.index[t]) * columns.in + columns.index[u]]);
        args.result[(outer * rows.out + o) * columns.out + p] = static_cast<T>(sum);
      }
}

template <class T>
void permute_fprop_copy(const PermuteArgs<T>& args) {
  const int64_t width = args.size[ops::kPermuteAxes - 1];
  for (int64_t row = 0; row < args.rows(); ++row)
    for (int64_t i = 0; i < width; ++i)
      args.result[row * width + i] =
          args.x[args.source(row) + i * args.stride[ops::kPermuteAxes - 1]];
}

LAMINA_INSTANTIATE(resample_fprop_axis, ResampleArgs)
LAMINA_INSTANTIATE(resample_planes_fprop_axes, ResamplePlanesArgs)
LAMINA_INSTANTIATE(permute_fprop_copy, PermuteArgs)

}  // namespace lamina::ref
