// Batch norm: y = f((x - mean) / sqrt(var + eps) * weight + bias + residual).
//
// Method        both moments in one pass about the mean of a channel's first elements (a second
//               pass where that is more than a deviation off), then the result, backwards through
//               what the cache still holds. Gradients: both sums in one pass, then grad_x. Without
//               a residual f' is found from x again, which saves reading y; with one the first pass
//               leaves grad_y f' for the second and for the residual.
// Partitioning  one task per channel, or several with short lines; pieces of planes where channels
//               are few or statistics given;
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

inline constexpr int64_t kPiece = 16384, kPieces = 8;  // elements of a line; streamed, of a task
inline constexpr int64_t kFewChannels = 8;             // whose lines tasks share
inline constexpr int64_t kMostChannels = 16, kRun = 2048;  // of a task: kRun elements an image

// Neighbouring channels of a task: their short lines are one run of memory in every image.
static int64_t channels_of_task(int64_t inner) {
  return min_of<int64_t>(kMostChannels, ceil_div(kRun, max_of<int64_t>(inner, 1)));
}

// Whether channels are so few that tasks take pieces of their lines, and both passes are jobs of
// their own.
template <class T>
static bool shares_channels(const BatchNormArgs<T>& args) {
  return args.c < max_of(kFewChannels, channels_of_task(args.inner) + 1) &&
         args.n * args.c * args.inner > 2 * kPiece;
}

// body(piece, at, c, size) for the pieces of all lines, in the order of memory.
template <class T, class Body>
static void each_piece(const BatchNormArgs<T>& args, bool streamed, const Body& body) {
  const int64_t size = max_of<int64_t>(min_of(args.inner, kPiece), 1);
  const int64_t of_line = ceil_div(args.inner, size), some = (streamed ? kPieces : 1) * kPiece;
  parallel_ranges(args.n * args.c * of_line, ceil_div(some, size), [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t line = piece / of_line, first = piece % of_line * size;
      body(piece, line * args.inner + first, line % args.c, min_of(size, args.inner - first));
    }
    finish_streams(streamed);
  });
}

// take(c, sums) for every channel, of what sum(at, c, size) is of a piece.
template <class T, class Sum, class Take>
static void sums_of_pieces(const BatchNormArgs<T>& args, bool large, const Sum& sum,
                           const Take& take) {
  const int64_t of_line = ceil_div(args.inner, kPiece);
  const Scratch<TwoSums> sums(args.n * args.c * of_line);
  each_piece(args, large, [&](int64_t piece, int64_t at, int64_t c, int64_t size) {
    sums[piece] = sum(at, c, size).total();
  });
  for (int64_t c = 0; c < args.c; ++c) {
    TwoSums total;
    for (int64_t n = 0; n < args.n; ++n)
      for (int64_t i = 0; i < of_line; ++i) {
        const TwoSums& own = sums[(n * args.c + c) * of_line + i];
        total.first += own.first, total.second += own.second;
      }
    take(c, total);
  }
}

// As channel_statistics, of all channels.
template <class T>
static void shared_statistics(const BatchNormArgs<T>& args, bool large) {
  const Scratch<T> shift(args.c);
  const Scratch<bool> again(args.c);
  for (int64_t c = 0; c < args.c; ++c)
    shift[c] = near_mean(args.x + c * args.inner, args.inner, 256), again[c] = true;
  bool any = true;
  for (int pass = 0; any && pass < 2; ++pass) {
    any = false;
    const auto sum = [&](int64_t at, int64_t c, int64_t size) {
      if (!again[c]) return LaneSums<T>{};
      return large ? moments<true>(args.x + at, shift[c], size)
                   : moments(args.x + at, shift[c], size);
    };
    sums_of_pieces(args, large, sum, [&](int64_t c, const TwoSums& total) {
      if (!again[c]) return;
      T &mean = args.mean[c], &var = args.var[c];
      again[c] = !take_moments(total, double(args.n * args.inner), shift[c], mean, var);
      shift[c] = mean, any |= again[c];
    });
  }
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
static void normalise(const BatchNormArgs<T>& args, int64_t at, int64_t c, T scale, int64_t size,
                      bool streamed, int64_t wanted) {
  const T a = args.epilogue.a, b = args.epilogue.b;
  const T* residual = args.epilogue.residual ? args.epilogue.residual + at : nullptr;
  affine_line<1>(args.x + at, args.mean[c], scale, shift_of(args, c), args.result + at, size,
                 streamed, args.x + wanted, [=](int64_t i, int64_t count, Vec<T> v) {
                   if (residual) v += load_first(residual + i, count);
                   return Kind::template f<T>(v, a, b);
                 });
}

// Groups of channels, or with statistics that are given pieces of planes, in the order of memory.
template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  const bool streamed = is_streamed<T>(args.n * args.c * args.inner);
  visit_kind(args.epilogue.kind, [&]<class Kind>(Kind) {
    if (args.inner < kRowsBelow) return batch_norm_rows<Kind>(args);
    const bool shared = shares_channels(args);
    if (args.training && shared) shared_statistics(args, streamed);
    if (!args.training || shared)
      return each_piece(args, streamed, [&](int64_t, int64_t at, int64_t c, int64_t size) {
        normalise<Kind>(args, at, c, scale_of(args, c), size, streamed, at + kPrefetched<T>);
      });
    parallel_ranges(args.c, channels_of_task(args.inner), [&](int64_t begin, int64_t end) {
      channel_statistics(args, begin, end, streamed && args.inner >= kRun);
      T scale[kMostChannels];
      for (int64_t c = begin; c < end; ++c) scale[c - begin] = scale_of(args, c);
      // Backwards: the last planes are still in a cache.
      for (int64_t n = args.n - 1; n >= 0; --n)
        for (int64_t c = begin; c < end; ++c)
          normalise<Kind>(args, (n * args.c + c) * args.inner, c, scale[c - begin], args.inner,
                          streamed, wanted_at<1>(args, begin, end, n, c));
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

// grad_x = grad_y scale - ((x - mean) dot + sum), of a channel.
template <class T>
struct ChannelSlope {
  T scale, dot, sum;

  // own(i, count, centred) is grad_y. Pace: as gradient_line.
  template <int Pace, class Slope>
  LAMINA_INLINE void write(const BatchNormArgs<T>& args, int64_t at, int64_t c, int64_t size,
                           bool streamed, int64_t wanted, const Slope& own) const {
    const T *x = args.x + at, *ahead = args.grad_y + wanted;
    T* const to = args.result + at;
    if (args.training)
      gradient_line<Pace>(x, scale, args.mean[c], dot, sum, to, size, streamed, args.x + wanted,
                          ahead, own);
    else  // x is not in it, which may be Inf
      fixed_gradient_line<Pace>(x, scale, args.mean[c], to, size, streamed, ahead, own);
  }
};

// From the sums of grad_y and of grad_y (x - mean): the parameters' gradients, too.
template <class T>
static ChannelSlope<T> slope_of(const BatchNormArgs<T>& args, int64_t c, const TwoSums& sums) {
  const double m = double(args.n * args.inner);
  const T rstd = reciprocal_root<T>(args.var[c] + args.eps), scale = scale_of(args, c);
  const auto [sum, dot] = sums;
  args.grad_bias[c] = T(sum), args.grad_weight[c] = T(dot * rstd);
  if (!args.training) return {scale, T(0), T(0)};
  return {scale, T(scale * rstd * rstd * dot / m), T(scale * sum / m)};
}

// Channels [begin, end): first(at, c) is the gradient of a line in the first pass, second(at, c) in
// the other one.
template <class T, class First, class Second>
static void channel_gradients(const BatchNormArgs<T>& args, int64_t begin, int64_t end,
                              bool streamed, const First& first, const Second& second) {
  LineSums<T> sums[kMostChannels];
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = (n * args.c + c) * args.inner;
      if (!streamed) prefetch_line(args.result + at, args.inner);
      sums[c - begin].add(slopes(args.x + at, args.mean[c], args.inner, first(at, c)));
    }
  ChannelSlope<T> slope[kMostChannels];
  for (int64_t c = begin; c < end; ++c)
    slope[c - begin] = slope_of(args, c, sums[c - begin].total());
  const bool cached = args.n * (end - begin) * args.inner <= kCached;
  for (int64_t k = 0; k < args.n; ++k)
    for (int64_t c = begin; c < end; ++c) {
      const int64_t n = cached ? k : args.n - 1 - k, at = (n * args.c + c) * args.inner;
      const int64_t wanted = wanted_at<2>(args, begin, end, args.n - 1 - k, c);
      slope[c - begin].template write<2>(args, at, c, args.inner, streamed, wanted, second(at, c));
    }
  finish_streams(streamed);
}

// The same where tasks share channels.
template <class T, class First, class Second>
static void shared_gradients(const BatchNormArgs<T>& args, bool streamed, const First& first,
                             const Second& second) {
  const Scratch<ChannelSlope<T>> slope(args.c);
  const auto sum = [&](int64_t at, int64_t c, int64_t size) {
    return slopes(args.x + at, args.mean[c], size, first(at, c));
  };
  sums_of_pieces(args, streamed, sum,
                 [&](int64_t c, const TwoSums& sums) { slope[c] = slope_of(args, c, sums); });
  each_piece(args, streamed, [&](int64_t, int64_t at, int64_t c, int64_t size) {
    slope[c].template write<1>(args, at, c, size, streamed, at + kPrefetched<T>, second(at, c));
  });
}

template <class T>
void batch_norm_dgrad_channels(const BatchNormArgs<T>& args) {
  const bool streamed = args.result != args.grad_y && is_streamed<T>(args.n * args.c * args.inner);
  const T a = args.epilogue.a, b = args.epilogue.b;
  visit_kind(args.epilogue.kind, [&]<class Kind>(Kind) {
    if (args.inner < kRowsBelow) return batch_norm_rows_gradient<Kind>(args);
    const auto stored = [&](int64_t at, int64_t) {
      return StoredGradient<T>{args.grad_residual + at};
    };
    const auto kept = [&](int64_t at, int64_t) {
      T* const grad_residual = args.grad_residual + at;
      return KeptGradient<Kind, T>{args.grad_y + at, args.y + at, grad_residual, a, b};
    };
    const auto with_gated = [&](const auto& scale_at, const auto& body) {
      const auto gated = [&](int64_t at, int64_t c) {
        return GatedGradient<Kind, T>{args.grad_y + at, scale_at(c), shift_of(args, c), a, b};
      };
      args.grad_residual ? body(kept, stored) : body(gated, gated);
    };
    if (shares_channels(args))
      return with_gated([&](int64_t c) { return scale_of(args, c); },
                        [&](const auto& first, const auto& second) {
                          shared_gradients(args, streamed, first, second);
                        });
    parallel_ranges(args.c, channels_of_task(args.inner), [&](int64_t begin, int64_t end) {
      T scale[kMostChannels];
      for (int64_t c = begin; c < end; ++c) scale[c - begin] = scale_of(args, c);
      with_gated([&](int64_t c) { return scale[c - begin]; },
                 [&](const auto& first, const auto& second) {
                   channel_gradients(args, begin, end, streamed, first, second);
                 });
    });
  });
}

LAMINA_INSTANTIATE(batch_norm_fprop_channels, BatchNormArgs)
LAMINA_INSTANTIATE(batch_norm_dgrad_channels, BatchNormArgs)

LAMINA_CPU_NAMESPACE_END
