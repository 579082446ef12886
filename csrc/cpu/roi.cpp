// RoI pool, RoI align and non-maximum suppression (ops/roi.h).
//
// Method        the spans or weights of a box's bins once per box and block of channels; a bin of
//               RoI align is two small dot products (bilinear sampling and the mean are separable).
// Partitioning  fprop: box and block of channels. dgrad: image and block of channels, whose planes
//               it alone writes, box after box.
// Numerics      sums in the order of rows, then columns; gradients in the order of boxes and bins.
#include "ops/roi.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "shared/roi.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::NmsArgs;
using ops::RoiArgs;
using roi::Span;

inline constexpr int64_t kChannelBlock = 16;

// body(first channel, end) for blocks of channels of each of `count` boxes or images.
template <class T, class Body>
static void for_each_channel_block(const RoiArgs<T>& args, int64_t count, const Body& body) {
  const int64_t blocks = ceil_div(args.c, kChannelBlock);
  parallel_for(count * blocks, [&](int64_t task) {
    const int64_t first = task % blocks * kChannelBlock;
    body(task / blocks, first, min_of(first + kChannelBlock, args.c));
  });
}

template <class T>
static void clear_planes(const RoiArgs<T>& args, int64_t n, int64_t begin, int64_t end) {
  T* planes = args.result + (n * args.c + begin) * args.plane();
  for (int64_t i = 0; i < (end - begin) * args.plane(); ++i) planes[i] = 0;
}

template <class T>
void roi_pool_fprop_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  for_each_channel_block(args, args.boxes, [&](int64_t box, int64_t begin, int64_t end) {
    const T* r = args.rois + box * 5;
    Scratch<Span> columns(args.bins_w);
    for (int64_t q = 0; q < args.bins_w; ++q)
      columns[q] = roi::pool_span(r[1], r[3], args.scale, args.bins_w, q, args.w);
    for (int64_t c = begin; c < end; ++c) {
      const T* x = args.x + (args.image(box) * args.c + c) * args.plane();
      int64_t at = (box * args.c + c) * args.bins();
      for (int64_t p = 0; p < args.bins_h; ++p) {
        const Span rows = roi::pool_span(r[2], r[4], args.scale, args.bins_h, p, args.h);
        for (int64_t q = 0; q < args.bins_w; ++q, ++at) {
          int64_t best = -1;
          T largest = 0;
          for (int64_t i = rows.begin; i < rows.end; ++i)
            for (int64_t j = columns[q].begin; j < columns[q].end; ++j) {
              const T value = x[i * args.w + j];
              // `!(value <= largest)` holds for a larger value and for the first NaN.
              const bool better = best < 0 || (!(value <= largest) && largest == largest);
              largest = better ? value : largest, best = better ? i * args.w + j : best;
            }
          args.index[at] = best, args.result[at] = largest;
        }
      }
    }
  });
}

template <class T>
void roi_pool_dgrad_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  for_each_channel_block(args, args.n, [&](int64_t n, int64_t begin, int64_t end) {
    clear_planes(args, n, begin, end);
    for (int64_t box = 0; box < args.boxes; ++box) {
      if (args.image(box) != n) continue;
      for (int64_t c = begin; c < end; ++c) {
        T* grad_x = args.result + (n * args.c + c) * args.plane();
        const int64_t first = (box * args.c + c) * args.bins();
        for (int64_t at = first; at < first + args.bins(); ++at)
          if (args.index[at] >= 0) grad_x[args.index[at]] += args.grad_y[at];
      }
    }
  });
}

// The weights of all bins of a box.
template <class T>
struct BoxWeights {
  Scratch<T> rows, columns;  // [bins_h][h], [bins_w][w]
  Scratch<Span> row_span, column_span;

  explicit BoxWeights(const RoiArgs<T>& args)
      : rows(args.bins_h * args.h),
        columns(args.bins_w * args.w),
        row_span(args.bins_h),
        column_span(args.bins_w) {}

  void fill(const RoiArgs<T>& args, int64_t box) {
    const T* r = args.rois + box * 5;
    for (int64_t p = 0; p < args.bins_h; ++p)
      row_span[p] = roi::align_weights(r[2], r[4], args.scale, args.sampling_ratio, args.aligned,
                                       args.bins_h, p, args.h, &rows[p * args.h]);
    for (int64_t q = 0; q < args.bins_w; ++q)
      column_span[q] = roi::align_weights(r[1], r[3], args.scale, args.sampling_ratio, args.aligned,
                                          args.bins_w, q, args.w, &columns[q * args.w]);
  }
};

template <class T>
void roi_align_fprop_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  for_each_channel_block(args, args.boxes, [&](int64_t box, int64_t begin, int64_t end) {
    BoxWeights<T> weights(args);
    weights.fill(args, box);
    for (int64_t c = begin; c < end; ++c) {
      const T* x = args.x + (args.image(box) * args.c + c) * args.plane();
      T* y = args.result + (box * args.c + c) * args.bins();
      for (int64_t p = 0; p < args.bins_h; ++p)
        for (int64_t q = 0; q < args.bins_w; ++q) {
          const Span rows = weights.row_span[p], columns = weights.column_span[q];
          T sum = 0;
          for (int64_t i = rows.begin; i < rows.end; ++i) {
            T line = 0;
            for (int64_t j = columns.begin; j < columns.end; ++j)
              line += weights.columns[q * args.w + j] * x[i * args.w + j];
            sum += weights.rows[p * args.h + i] * line;
          }
          y[p * args.bins_w + q] = sum;
        }
    }
  });
}

template <class T>
void roi_align_dgrad_bins(const RoiArgs<T>& args) {
  if ((*args.bad = first_bad_box(args)) >= 0) return;
  for_each_channel_block(args, args.n, [&](int64_t n, int64_t begin, int64_t end) {
    clear_planes(args, n, begin, end);
    BoxWeights<T> weights(args);
    for (int64_t box = 0; box < args.boxes; ++box) {
      if (args.image(box) != n) continue;
      weights.fill(args, box);
      for (int64_t c = begin; c < end; ++c) {
        T* grad_x = args.result + (n * args.c + c) * args.plane();
        const T* grad_y = args.grad_y + (box * args.c + c) * args.bins();
        for (int64_t p = 0; p < args.bins_h; ++p)
          for (int64_t q = 0; q < args.bins_w; ++q) {
            const Span rows = weights.row_span[p], columns = weights.column_span[q];
            for (int64_t i = rows.begin; i < rows.end; ++i) {
              const T share = weights.rows[p * args.h + i] * grad_y[p * args.bins_w + q];
              for (int64_t j = columns.begin; j < columns.end; ++j)
                grad_x[i * args.w + j] += share * weights.columns[q * args.w + j];
            }
          }
      }
    }
  });
}

template <class T>
void nms_fprop_greedy(const NmsArgs<T>& args) {
  const int64_t n = args.n;
  Scratch<double> side[5] = {Scratch<double>(n), Scratch<double>(n), Scratch<double>(n),
                             Scratch<double>(n), Scratch<double>(n)};
  for (int64_t i = 0; i < n; ++i) {
    for (int edge = 0; edge < 4; ++edge) side[edge][i] = args.boxes[i * 4 + edge];
    side[4][i] = (side[2][i] - side[0][i]) * (side[3][i] - side[1][i]);
    args.keep[i] = 1;
  }
  const double *x1 = side[0].get(), *y1 = side[1].get(), *x2 = side[2].get(), *y2 = side[3].get();
  const double* area = side[4].get();
  for (int64_t i = 0; i < n; ++i) {
    if (!args.keep[i]) continue;
    for (int64_t j = i + 1; j < n; ++j) {
      const double width = min_of(x2[i], x2[j]) - max_of(x1[i], x1[j]);
      const double height = min_of(y2[i], y2[j]) - max_of(y1[i], y1[j]);
      const double shared = max_of(width, 0.0) * max_of(height, 0.0);
      args.keep[j] &= !(shared / (area[i] + area[j] - shared) > args.threshold);
    }
  }
}

LAMINA_INSTANTIATE(roi_pool_fprop_bins, RoiArgs)
LAMINA_INSTANTIATE(roi_pool_dgrad_bins, RoiArgs)
LAMINA_INSTANTIATE(roi_align_fprop_bins, RoiArgs)
LAMINA_INSTANTIATE(roi_align_dgrad_bins, RoiArgs)
LAMINA_INSTANTIATE(nms_fprop_greedy, NmsArgs)

LAMINA_CPU_NAMESPACE_END
