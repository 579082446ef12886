// Batch norm: y = f((x - mean) / sqrt(var + eps) * weight + bias + residual).
//
// Method        both moments in one pass about the mean of a channel's first elements (a second
//               pass where that is more than a deviation off), then the result, backwards through
//               what the cache still holds. Gradients: both sums in one pass, then grad_x. Without
//               a residual f' is found from x again, which saves reading y; with one the first pass
//               leaves grad_y f' for the second and for the residual.
// Partitioning  one task per channel, or several with short lines; planes with given statistics;
//               images where channels have few elements in one (batch_norm_rows.h).
// Numerics      lines are summed in vectors and a fixed tree, lines of a set in double precision.
//               The bits are those of batch norm, addition and activation one after the other.
// Floor         one read and one write of the tensor (dgrad: two reads), and one of the residual
//               (dgrad: one read of y and one write).
#include "cpu/activate.h"
#include "cpu/batch_norm_rows.h"
#include "cpu/line_norm.h"
#include "ops/instantiate.h"
#include "ops/normalization.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::BatchNormArgs;

inline constexpr int64_t kTaskElements = 16384;
inline constexpr int64_t kMostChannels = 16, kRun = 2048;  // of a task: kRun elements an image

// Neighbouring channels of a task: their short lines are one run of memory in every image.
static int64_t channels_of_task(int64_t inner) {
  return min_of<int64_t>(kMostChannels, ceil_div(kRun, max_of<int64_t>(inner, 1)));
}

// Means and variances of channels [begin, end): one pass about the mean of a channel's first
// elements, and where that is too far off, a second one.
template <class T>
static void channel_statistics(const BatchNormArgs<T>& args, int64_t begin, int64_t end,
                               bool large) {
  const int64_t count = end - begin, image = args.c * args.inner;
  T shift[kMostChannels];
  bool again[kMostChannels];
  for (int64_t c = 0; c < count; ++c) {
    shift[c] = near_mean(args.x + (begin + c) * args.inner, args.inner, 256);
    again[c] = true;
  }
  for (int pass = 0; pass < 2; ++pass) {
    LineSums<T> sums[kMostChannels];
    for (int64_t n = 0; n < args.n; ++n)
      for (int64_t c = 0; c < count; ++c) {
        if (!again[c]) continue;
        const T* x = args.x + n * image + (begin + c) * args.inner;
        if (args.inner < kRun && n + 1 < args.n) prefetch_line(x + image, args.inner);
        sums[c].add(large ? moments<true>(x, shift[c], args.inner)
                          : moments(x, shift[c], args.inner));
      }
    for (int64_t c = 0; c < count; ++c) {
      if (!again[c]) continue;
      T &mean = args.mean[begin + c], &var = args.var[begin + c];
      again[c] = !take_moments(sums[c].total(), double(args.n * args.inner), shift[c], mean, var);
      shift[c] = mean;
    }
  }
}

// What a channel's standardised elements are multiplied by.
template <class T>
static T scale_of(const BatchNormArgs<T>& args, int64_t c) {
  return reciprocal_root<T>(args.var[c] + args.eps) * (args.weight ? args.weight[c] : T(1));
}
template <class T>
static T shift_of(const BatchNormArgs<T>& args, int64_t c) {
  return args.bias ? args.bias[c] : T(0);
}

// body(kind) with the functor of one of the activations that kernels of batch norm apply
// (ops/epilogue_call.cpp).
template <class Body>
static void visit_kind(ops::Activation kind, const Body& body) {
  switch (kind) {
    case ops::Activation::relu:
      return body(Kind_relu{});
    case ops::Activation::leaky_relu:
      return body(Kind_leaky_relu{});
    case ops::Activation::hardtanh:
      return body(Kind_hardtanh{});
    default:
      return body(Kind_identity{});
  }
}

// The channels [begin, end) of a task are written from the last image on. Meanwhile the next task's
// are asked for from the first image on, one element for every Pace: where they lie when line (n,
// c) is written. Memory is then read all the time, while one task writes and while the next one
// sums.
template <int Pace, class T>
static int64_t wanted_at(const BatchNormArgs<T>& args, int64_t begin, int64_t end, int64_t n,
                         int64_t c) {
  const int64_t run = (end - begin) * args.inner;
  if (end == args.c || run == 0) return (n * args.c + c) * args.inner;
  const int64_t asked = ((args.n - 1 - n) * run + (c - begin) * args.inner) / Pace;
  return (asked / run * args.c + end) * args.inner + asked % run;
}

template <class Kind, class T>
static void normalise(const BatchNormArgs<T>& args, int64_t n, int64_t c, T scale, bool streamed,
                      int64_t wanted) {
  const int64_t at = (n * args.c + c) * args.inner;
  const T a = args.epilogue.a, b = args.epilogue.b;
  const T* residual = args.epilogue.residual ? args.epilogue.residual + at : nullptr;
  affine_line<1>(args.x + at, args.mean[c], scale, shift_of(args, c), args.result + at, args.inner,
                 streamed, args.x + wanted, [=](int64_t i, int64_t count, Vec<T> v) {
                   if (residual) v += load_first(residual + i, count);
                   return Kind::template f<T>(v, a, b);
                 });
}

// Groups of channels, or with statistics that are given planes, in the order of memory.
template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  const bool streamed = is_streamed<T>(args.n * args.c * args.inner);
  visit_kind(args.epilogue.kind, [&]<class Kind>(Kind) {
    if (args.inner < kRowsBelow) return batch_norm_rows<Kind>(args);
    if (!args.training) {
      const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(args.inner, 1));
      return parallel_ranges(args.n * args.c, grain, [&](int64_t begin, int64_t end) {
        for (int64_t plane = begin; plane < end; ++plane) {
          const int64_t c = plane % args.c;
          normalise<Kind>(args, plane / args.c, c, scale_of(args, c), streamed, plane * args.inner);
        }
        finish_streams(streamed);
      });
    }
    parallel_ranges(args.c, channels_of_task(args.inner), [&](int64_t begin, int64_t end) {
      channel_statistics(args, begin, end, streamed && args.inner >= kRun);
      T scale[kMostChannels];
      for (int64_t c = begin; c < end; ++c) scale[c - begin] = scale_of(args, c);
      // Backwards: the last planes are still in a cache.
      for (int64_t n = args.n - 1; n >= 0; --n)
        for (int64_t c = begin; c < end; ++c)
          normalise<Kind>(args, n, c, scale[c - begin], streamed,
                          wanted_at<1>(args, begin, end, n, c));
      finish_streams(streamed);
    });
  });
}

// grad_y f'(y) of one line: y from x, or as it lies in memory, and then the product stays in
// `kept`.
template <class Kind, class T>
struct GatedGradient {
  const T* grad_y;
  T scale, shift, a, b;
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count, Vec<T> centred) const {
    const Vec<T> g = load_first(grad_y + i, count);
    if constexpr (std::is_same_v<Kind, Kind_identity>) return g;
    return Kind::template gradient<T>(g, centred * scale + shift, a, b);
  }
};
template <class Kind, class T>
struct KeptGradient {
  const T *grad_y, *y;
  T* kept;
  T a, b;
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count, Vec<T>) const {
    const Vec<T> g =
        Kind::template gradient<T>(load_first(grad_y + i, count), load_first(y + i, count), a, b);
    store_first(kept + i, count, g);
    return g;
  }
};

// Channels [begin, end), with their scales: first(at, c) is the gradient of a line in the first
// pass, second(at, c) in the other one.
template <class T, class First, class Second>
static void channel_gradients(const BatchNormArgs<T>& args, int64_t begin, int64_t end,
                              const T* scale, bool streamed, const First& first,
                              const Second& second) {
  const double m = double(args.n * args.inner);
  LineSums<T> sums[kMostChannels];
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = (n * args.c + c) * args.inner;
      if (!streamed) prefetch_line(args.result + at, args.inner);
      sums[c - begin].add(slopes(args.x + at, args.mean[c], args.inner, first(at, c)));
    }
  T of_dot[kMostChannels], of_sum[kMostChannels];
  for (int64_t c = begin; c < end; ++c) {
    const T rstd = reciprocal_root<T>(args.var[c] + args.eps);
    const auto [sum, dot] = sums[c - begin].total();
    const T own = scale[c - begin];
    args.grad_bias[c] = T(sum), args.grad_weight[c] = T(dot * rstd);
    of_dot[c - begin] = args.training ? T(own * rstd * rstd * dot / m) : T(0);
    of_sum[c - begin] = args.training ? T(own * sum / m) : T(0);
  }
  const bool cached = args.n * (end - begin) * args.inner <= kCached;
  for (int64_t k = 0; k < args.n; ++k)
    for (int64_t c = begin; c < end; ++c) {
      const int64_t n = cached ? k : args.n - 1 - k;
      const int64_t at = (n * args.c + c) * args.inner, own = c - begin;
      const int64_t wanted = wanted_at<2>(args, begin, end, args.n - 1 - k, c);
      if (!args.training) {  // x is not in it, which may be Inf
        fixed_gradient_line(args.x + at, scale[own], args.mean[c], args.result + at, args.inner,
                            streamed, args.grad_y + wanted, second(at, c));
        continue;
      }
      gradient_line(args.x + at, scale[own], args.mean[c], of_dot[own], of_sum[own],
                    args.result + at, args.inner, streamed, args.x + wanted, args.grad_y + wanted,
                    second(at, c));
    }
  finish_streams(streamed);
}

template <class T>
void batch_norm_dgrad_channels(const BatchNormArgs<T>& args) {
  const bool streamed = args.result != args.grad_y && is_streamed<T>(args.n * args.c * args.inner);
  const T a = args.epilogue.a, b = args.epilogue.b;
  visit_kind(args.epilogue.kind, [&]<class Kind>(Kind) {
    if (args.inner < kRowsBelow) return batch_norm_rows_gradient<Kind>(args);
    parallel_ranges(args.c, channels_of_task(args.inner), [&](int64_t begin, int64_t end) {
      T scale[kMostChannels];
      for (int64_t c = begin; c < end; ++c) scale[c - begin] = scale_of(args, c);
      const auto gated = [&](int64_t at, int64_t c) {
        return GatedGradient<Kind, T>{args.grad_y + at, scale[c - begin], shift_of(args, c), a, b};
      };
      const auto kept = [&](int64_t at, int64_t) {
        T* const grad_residual = args.grad_residual + at;
        return KeptGradient<Kind, T>{args.grad_y + at, args.y + at, grad_residual, a, b};
      };
      const auto stored = [&](int64_t at, int64_t) {
        return StoredGradient<T>{args.grad_residual + at};
      };
      if (args.grad_residual)
        channel_gradients(args, begin, end, scale, streamed, kept, stored);
      else
        channel_gradients(args, begin, end, scale, streamed, gated, gated);
    });
  });
}

LAMINA_INSTANTIATE(batch_norm_fprop_channels, BatchNormArgs)
LAMINA_INSTANTIATE(batch_norm_dgrad_channels, BatchNormArgs)

LAMINA_CPU_NAMESPACE_END
