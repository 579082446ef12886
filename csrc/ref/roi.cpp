// Regions of interest, reference: the sums of ops/roi.h as loops.
#include "ops/roi.h"

#include <algorithm>
#include <vector>

#include "ops/instantiate.h"
#include "shared/roi.h"

namespace lamina::ref {
namespace {

using ops::NmsArgs;
using ops::RoiArgs;

template <class T>
roi::Span rows_of(const RoiArgs<T>& args, int64_t box, int64_t p) {
  const T* r = args.rois + box * 5;
  return roi::pool_span(r[2], r[4], args.scale, args.bins_h, p, args.h);
}
template <class T>
roi::Span columns_of(const RoiArgs<T>& args, int64_t box, int64_t q) {
  const T* r = args.rois + box * 5;
  return roi::pool_span(r[1], r[3], args.scale, args.bins_w, q, args.w);
}

// Calls body(box, channel, p, q, flat result index).
template <class T, class Body>
void for_each_bin(const RoiArgs<T>& args, Body body) {
  int64_t at = 0;
  for (int64_t box = 0; box < args.boxes; ++box)
    for (int64_t c = 0; c < args.c; ++c)
      for (int64_t p = 0; p < args.bins_h; ++p)
        for (int64_t q = 0; q < args.bins_w; ++q) body(box, c, p, q, at++);
}

// Calls body(box, channel, result index, position in the plane, weight) for every product.
template <class T, class Body>
void for_each_sample(const RoiArgs<T>& args, Body body) {
  std::vector<double> rows(args.h), columns(args.w);
  for_each_bin(args, [&](int64_t box, int64_t c, int64_t p, int64_t q, int64_t at) {
    const T* r = args.rois + box * 5;
    const roi::Span i = roi::align_weights(r[2], r[4], args.scale, args.sampling_ratio,
                                           args.aligned, args.bins_h, p, args.h, rows.data());
    const roi::Span j = roi::align_weights(r[1], r[3], args.scale, args.sampling_ratio,
                                           args.aligned, args.bins_w, q, args.w, columns.data());
    for (int64_t row = i.begin; row < i.end; ++row)
      for (int64_t column = j.begin; column < j.end; ++column)
        if (rows[row] * columns[column] != 0)
          body(box, c, at, row * args.w + column, rows[row] * columns[column]);
  });
}

}  // namespace

template <class T>
void roi_pool_fprop_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  for_each_bin(args, [&](int64_t box, int64_t c, int64_t p, int64_t q, int64_t at) {
    const T* x = args.x + (args.image(box) * args.c + c) * args.plane();
    const roi::Span rows = rows_of(args, box, p), columns = columns_of(args, box, q);
    int64_t best = -1;
    for (int64_t i = rows.begin; i < rows.end; ++i)
      for (int64_t j = columns.begin; j < columns.end; ++j) {
        const T value = x[i * args.w + j];
        if (best < 0 || (!(value <= x[best]) && x[best] == x[best])) best = i * args.w + j;
      }
    args.index[at] = best, args.result[at] = best < 0 ? T(0) : x[best];
  });
}

template <class T>
void roi_pool_dgrad_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  std::fill(args.result, args.result + args.n * args.c * args.plane(), T(0));
  for_each_bin(args, [&](int64_t box, int64_t c, int64_t, int64_t, int64_t at) {
    if (args.index[at] >= 0)
      args.result[(args.image(box) * args.c + c) * args.plane() + args.index[at]] +=
          args.grad_y[at];
  });
}

template <class T>
void roi_align_fprop_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  std::vector<double> y(args.boxes * args.c * args.bins());
  for_each_sample(args, [&](int64_t box, int64_t c, int64_t at, int64_t i, double weight) {
    y[at] += weight * args.x[(args.image(box) * args.c + c) * args.plane() + i];
  });
  std::copy(y.begin(), y.end(), args.result);
}

template <class T>
void roi_align_dgrad_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  std::vector<double> grad_x(args.n * args.c * args.plane());
  for_each_sample(args, [&](int64_t box, int64_t c, int64_t at, int64_t i, double weight) {
    grad_x[(args.image(box) * args.c + c) * args.plane() + i] += weight * args.grad_y[at];
  });
  std::copy(grad_x.begin(), grad_x.end(), args.result);
}

template <class T>
void nms_fprop_greedy(const NmsArgs<T>& args) {
  auto area = [](const T* b) {
    return (static_cast<double>(b[2]) - b[0]) * (static_cast<double>(b[3]) - b[1]);
  };
  for (int64_t i = 0; i < args.n; ++i) {
    const T* a = args.boxes + i * 4;
    args.keep[i] = 1;
    for (int64_t j = 0; j < i && args.keep[i]; ++j) {
      if (!args.keep[j]) continue;
      const T* b = args.boxes + j * 4;
      const double width = static_cast<double>(std::min(a[2], b[2])) - std::max(a[0], b[0]);
      const double height = static_cast<double>(std::min(a[3], b[3])) - std::max(a[1], b[1]);
      const double shared = std::max(width, 0.0) * std::max(height, 0.0);
      if (shared / (area(a) + area(b) - shared) > args.threshold) args.keep[i] = 0;
    }
  }
}

LAMINA_INSTANTIATE(roi_pool_fprop_bins, RoiArgs)
LAMINA_INSTANTIATE(roi_pool_dgrad_bins, RoiArgs)
LAMINA_INSTANTIATE(roi_align_fprop_bins, RoiArgs)
LAMINA_INSTANTIATE(roi_align_dgrad_bins, RoiArgs)
LAMINA_INSTANTIATE(nms_fprop_greedy, NmsArgs)

}  // namespace lamina::ref
