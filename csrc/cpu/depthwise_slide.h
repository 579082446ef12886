// Depthwise convolution of small planes at stride 1: a window of rows slides down a vector of
// columns.
//
//   Every row of x is loaded once per column of taps and multiplied with all rows of taps: into the
//   sums of the R rows of y that it meets, or with the R rows of grad_y into the R * S sums of the
//   weights. What slides stays in registers, so a plane costs nothing but its rows; neighbouring
//   planes follow one another in memory. Larger planes take tiles of rows (cpu/depthwise.h).
#pragma once

#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/direct_wgrad.h"
#include "cpu/scratch.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kSlidePlane = 1024;      // elements of a small plane
inline constexpr int64_t kSlideTask = 1 << 17;    // products that are worth a task
inline constexpr int64_t kSlideRun = 512;         // products of a lane at a stretch
inline constexpr int64_t kSlideSums = 16 * 1024;  // bytes of the sums of a task: they stay in L1

// Whether a square filter and all that slides fits the registers, and the planes are small.
LAMINA_INLINE bool slides(const ops::ConvShape& s) {
  const bool one_plane = s.in[0] == 1 && s.out[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0;
  const bool small = s.in[1] * s.in[2] <= kSlidePlane && s.out[1] * s.out[2] <= kSlidePlane;
  const bool fits = s.kernel[1] == 3 || (s.kernel[1] == 5 && kVectorBytes == 64);
  return one_plane && small && fits && s.kernel[1] == s.kernel[2] && s.stride[1] == 1 &&
         s.stride[2] == 1 && s.dilation[1] == 1;
}

// Tap (r, u) of the filter of a channel is weight[(r * R + u) * weight_step].
template <class T>
struct SlidePass {
  const T *x, *weight, *bias;
  ops::Epilogue<T> epilogue;
  T* y;
  int64_t planes, channels;  // of y
  int64_t shared;            // planes of y per plane of x
  int64_t weight_step;
  int64_t in[2], out[2], pad[2], spread;  // spread: dilation of the columns
};

// The columns of x that a vector of columns of y from `column` on meets, tap by tap.
template <class T, int R>
struct SlideColumns {
  int64_t first, spread;  // tap u meets column first + u * spread of x
  Lanes<T> inside[R];

  LAMINA_INLINE SlideColumns(int64_t column, int64_t pad, int64_t dilation, int64_t width)
      : first(column - pad), spread(dilation) {
#pragma GCC unroll 8
    for (int u = 0; u < R; ++u)
      inside[u] = Lanes<T>(-(first + u * dilation), width - (first + u * dilation));
  }
  LAMINA_INLINE Vec<T> load(const T* line, int u) const {
    return inside[u].load(line + u * spread);
  }
};

// A vector of columns, from `column` on, of planes [begin, end) of y.
template <class T, int R, bool Plain>
[[gnu::noinline]] static void slide_planes(const SlidePass<T>& pass, int64_t begin, int64_t end,
                                           int64_t column) {
  const int64_t rows = pass.in[0], width = pass.in[1], out_width = pass.out[1], pad = pass.pad[0];
  const int64_t out_size = pass.out[0] * out_width, last = pass.out[0] - 1 + R - 1 - pad;
  const int64_t step = pass.weight_step, channels = pass.channels, shared = pass.shared;
  const SlideColumns<T, R> columns(column, pass.pad[1], pass.spread, width);
  const Lanes<T> inside(0, out_width - column);
  T* const y = pass.y;
  for (int64_t plane = begin, k = begin % channels; plane < end; ++plane) {
    const T* const weight = pass.weight + k * R * R;
    const T bias = pass.bias ? pass.bias[k] : T(0);
    if (++k == channels) k = 0;
    Vec<T> factor[R][R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < R; ++u) factor[r][u] = broadcast(weight[(r * R + u) * step]);
    const T* line = pass.x + (shared == 1 ? plane : plane / shared) * rows * width +
                    max_of<int64_t>(-pad, 0) * width + columns.first;
    const int64_t place = plane * out_size;
    int64_t at = place + column - (R - 1) * out_width;  // the row of y that ends at this row of x
    Vec<T> sum[R] = {};
    for (int64_t row = -pad; row <= last; ++row, at += out_width) {
      if (row >= 0 && row < rows) {
        __builtin_prefetch(line + kPrefetchBytes / sizeof(T));
#pragma GCC unroll 8
        for (int u = 0; u < R; ++u) {
          const Vec<T> value = columns.load(line, u);
#pragma GCC unroll 8
          for (int j = 0; j < R; ++j) sum[j] += factor[R - 1 - j][u] * value;
        }
        line += width;
      }
      if (at >= place) {
        __builtin_prefetch(y + at + kPrefetchBytes / sizeof(T));
        Vec<T> value = sum[0] + bias;
        if constexpr (!Plain) {
          if (pass.epilogue.residual) value += inside.load(pass.epilogue.residual + at);
          value = activate(pass.epilogue, value);
        }
        inside.store(y + at, value);
      }
#pragma GCC unroll 8
      for (int j = 0; j + 1 < R; ++j) sum[j] = sum[j + 1];
      sum[R - 1] = Vec<T>{};
    }
  }
}

template <class T, int R>
static void slide_all_planes(const SlidePass<T>& pass) {
  const int64_t products = pass.out[0] * pass.out[1] * R * R;
  const int64_t grain = max_of<int64_t>(kSlideTask / max_of<int64_t>(products, 1), 1);
  const bool plain = pass.epilogue.empty();
  parallel_ranges(pass.planes, grain, [&](int64_t begin, int64_t end) {
    for (int64_t column = 0; column < pass.out[1]; column += kLanes<T>)
      if (plain)
        slide_planes<T, R, true>(pass, begin, end, column);
      else
        slide_planes<T, R, false>(pass, begin, end, column);
  });
}

// sums[channel][R][R] += the products of a vector of columns of grad_y, from `column` on, with x,
// for the planes of channels [begin, end) of image n.
template <class T, int R>
[[gnu::noinline]] static void slide_correlate(const ops::ConvArgs<T>& args, int64_t n,
                                              int64_t begin, int64_t end, int64_t column,
                                              Vec<T>* sums) {
  const ops::ConvShape& s = args.shape;
  const int64_t rows = s.in[1], width = s.in[2], out_rows = s.out[1], out_width = s.out[2];
  const int64_t pad = s.pad[1], shared = s.k_per_group();
  const SlideColumns<T, R> columns(column, s.pad[2], s.dilation[2], width);
  const Lanes<T> inside(0, out_width - column);
  for (int64_t k = begin; k < end; ++k, sums += R * R) {
    const int64_t channel = n * s.c + (shared == 1 ? k : k / shared);
    const T* line = args.x + channel * rows * width + columns.first;
    const T* next = args.grad_y + (n * s.k + k) * out_rows * out_width + column;
    Vec<T> sum[R][R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < R; ++u) sum[r][u] = sums[r * R + u];
    Vec<T> factor[R] = {};  // row + pad - (R - 1 - j) of grad_y
    for (int64_t row = -pad; row < rows; ++row) {
#pragma GCC unroll 8
      for (int j = 0; j + 1 < R; ++j) factor[j] = factor[j + 1];
      factor[R - 1] = Vec<T>{};
      if (row + pad < out_rows) {
        __builtin_prefetch(next + kPrefetchBytes / sizeof(T));
        factor[R - 1] = inside.load(next);
        next += out_width;
      }
      if (row < 0) continue;
      __builtin_prefetch(line + kPrefetchBytes / sizeof(T));
#pragma GCC unroll 8
      for (int u = 0; u < R; ++u) {
        const Vec<T> value = columns.load(line, u);
#pragma GCC unroll 8
        for (int j = 0; j < R; ++j) sum[R - 1 - j][u] += factor[j] * value;
      }
      line += width;
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < R; ++u) sums[r * R + u] = sum[r][u];
  }
}

template <class T, int R>
static void slide_wgrad(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  constexpr int64_t kTaps = R * R;
  const int64_t fit = kSlideSums / (kTaps * kVectorBytes);
  const int64_t worth = kSlideTask / max_of<int64_t>(s.n * s.out_size() * kTaps, 1);
  const int64_t terms = s.out[1] * ceil_div(s.out[2], kLanes<T>);  // of a lane and image
  const int64_t images = max_of<int64_t>(kSlideRun / max_of<int64_t>(terms, 1), 1);
  parallel_ranges(s.k, max_of<int64_t>(min_of(fit, worth), 1), [&](int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * kTaps;
    T* const result = args.result + begin * kTaps;
    Scratch<T> lanes(count * kLanes<T>);
    Vec<T>* const sums = reinterpret_cast<Vec<T>*>(lanes.get());
    for (int64_t i = 0; i < count; ++i) sums[i] = Vec<T>{}, result[i] = 0;
    for (int64_t first = 0; first < s.n; first += images) {
      for (int64_t n = first; n < min_of(first + images, s.n); ++n)
        for (int64_t column = 0; column < s.out[2]; column += kLanes<T>)
          slide_correlate<T, R>(args, n, begin, end, column, sums);
      for (int64_t i = 0; i < count; ++i) {
        result[i] += sum_lanes<T>(sums[i]);
        sums[i] = Vec<T>{};
      }
    }
    for (int64_t i = 0; i < count; ++i)
      if (!(result[i] - result[i] == T(0)))
        result[i] = exact_weight_gradient(args, begin + i / kTaps, 0, i % kTaps);
  });
}

LAMINA_CPU_NAMESPACE_END
