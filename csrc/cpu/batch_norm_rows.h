// Batch norm where a channel has few elements an image (behind a fully connected layer, one): an
// image is a row of c * inner positions, and what belongs to a channel is laid out by positions.
//
// Partitioning  the sums by blocks of positions and runs of images, the results by images
// Numerics      a position's sums over a run in T, those of runs and of a channel in double
// Floor         two reads and one write of the tensor (dgrad: four reads), mostly from a cache
#pragma once

#include "cpu/activate.h"
#include "cpu/line_norm.h"
#include "cpu/scratch.h"
#include "ops/normalization.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kRowsBelow = 32;  // elements of a channel in an image
inline constexpr int64_t kPositionBlock = 1024, kRowTask = 16384;

// Values of channels, position by position.
template <class T>
class ByPosition {
 public:
  ByPosition(const ops::BatchNormArgs<T>& args, const T* of_channels)
      : spread_(args.inner > 1 ? args.c * args.inner : 0),
        values_(args.inner > 1 ? spread_.get() : of_channels) {
    if (args.inner <= 1) return;
    T* to = spread_.get();
    for (int64_t c = 0; c < args.c; ++c)
      for (int64_t i = 0; i < args.inner; ++i) *to++ = of_channels[c];
  }
  LAMINA_INLINE Vec<T> at(int64_t position, int64_t count) const {
    return load_first(values_ + position, count);
  }

 private:
  Scratch<T> spread_;
  const T* values_;
};

// What the standardised elements of channels are multiplied by, and what is added.
template <class T>
struct ChannelScales {
  Scratch<T> scale, shift;
  explicit ChannelScales(const ops::BatchNormArgs<T>& args) : scale(args.c), shift(args.c) {
    for (int64_t c = 0; c < args.c; ++c) scale[c] = reciprocal_root<T>(args.var[c] + args.eps);
    if (args.weight)
      for (int64_t c = 0; c < args.c; ++c) scale[c] *= args.weight[c];
    for (int64_t c = 0; c < args.c; ++c) shift[c] = args.bias ? args.bias[c] : T(0);
  }
};

// take(c, sums) for every channel: two sums over the first `images` of what
// term(at, position, count, first, second) adds.
template <class T, class Term, class Take>
static void sums_of_rows(const ops::BatchNormArgs<T>& args, int64_t images, const Term& term,
                         const Take& take) {
  const int64_t row = args.c * args.inner, width = max_of<int64_t>(min_of(row, kPositionBlock), 1);
  const int64_t run = max_of<int64_t>(min_of<int64_t>(kRowTask / width, 256), 32);  // images
  const int64_t blocks = ceil_div(row, kPositionBlock), runs = ceil_div(images, run);
  const Scratch<T> first(runs * row), second(runs * row);
  parallel_ranges(runs * blocks, ceil_div(kRowTask, run * width), [&](int64_t begin, int64_t end) {
    constexpr int kStrip = 4;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t own = task / blocks, from = task % blocks * kPositionBlock;
      const int64_t top = own * run, bottom = min_of(top + run, images);
      const auto strip = [&]<int Count>(int64_t p, int64_t lanes) {
        Vec<T> sums[Count] = {}, others[Count] = {};
        for (int64_t n = top; n < bottom; ++n)
#pragma GCC unroll 4
          for (int64_t k = 0; k < Count; ++k) {
            const int64_t position = p + k * kLanes<T>;
            term(n * row + position, position, lanes, sums[k], others[k]);
          }
        for (int64_t k = 0; k < Count; ++k) {
          const int64_t place = own * row + p + k * kLanes<T>;
          store_first(first.get() + place, lanes, sums[k]);
          store_first(second.get() + place, lanes, others[k]);
        }
      };
      const int64_t to = min_of(from + kPositionBlock, row);
      int64_t p = from;
      for (; p + kStrip * kLanes<T> <= to; p += kStrip * kLanes<T>)
        strip.template operator()<kStrip>(p, kLanes<T>);
      for (; p < to; p += kLanes<T>)
        strip.template operator()<1>(p, min_of<int64_t>(kLanes<T>, to - p));
    }
  });
  constexpr int64_t kChannels = 256;
  parallel_ranges(args.c, kChannels, [&](int64_t begin, int64_t end) {
    TwoSums sums[kChannels];
    for (int64_t own = 0; own < runs; ++own) {
      const int64_t place = own * row + begin * args.inner;
      const T *firsts = first.get() + place, *seconds = second.get() + place;
      if (args.inner == 1) {
        for (int64_t c = 0; c < end - begin; ++c)
          sums[c].first += double(firsts[c]), sums[c].second += double(seconds[c]);
        continue;
      }
      for (int64_t c = 0; c < end - begin; ++c)
        for (int64_t i = 0; i < args.inner; ++i, ++firsts, ++seconds)
          sums[c].first += double(*firsts), sums[c].second += double(*seconds);
    }
    for (int64_t c = begin; c < end; ++c) take(c, sums[c - begin]);
  });
}

// Moments about the mean of the first images, and where that is too far off, about the mean.
template <class T>
static void statistics_of_rows(const ops::BatchNormArgs<T>& args) {
  const Scratch<T> shift(args.c);
  const int64_t sample = min_of<int64_t>(args.n, 32);
  const auto plain = [&](int64_t at, int64_t, int64_t count, Vec<T>& sum, Vec<T>&) {
    sum += load_first(args.x + at, count);
  };
  sums_of_rows(args, sample, plain, [&](int64_t c, const TwoSums& sums) {
    const double count = double(sample * args.inner);
    shift[c] = count > 0 ? T(sums.first / count) : T(0);
  });
  bool again = false;
  const Scratch<T> near(args.c);  // 1 where the moments have their digits
  for (int64_t c = 0; c < args.c; ++c) near[c] = T(0);
  for (int pass = 0; pass < 2; ++pass) {
    const ByPosition<T> centre(args, shift.get());
    const auto moments = [&](int64_t at, int64_t p, int64_t count, Vec<T>& sum, Vec<T>& squares) {
      const Vec<T> centred = load_first(args.x + at, count) - centre.at(p, count);
      sum += centred;
      squares += centred * centred;
    };
    sums_of_rows(args, args.n, moments, [&](int64_t c, const TwoSums& sums) {
      if (near[c] != T(0)) return;
      T &mean = args.mean[c], &var = args.var[c];
      near[c] = T(take_moments(sums, double(args.n * args.inner), shift[c], mean, var));
      shift[c] = mean;
    });
    for (int64_t c = 0; c < args.c; ++c) again |= near[c] == T(0);
    if (!again) return;
  }
}

// body(at, streamed) for the images of a task.
template <class T, class Body>
static void each_row(const ops::BatchNormArgs<T>& args, bool streamed, const Body& body) {
  const int64_t row = args.c * args.inner;
  parallel_ranges(args.n, ceil_div(kRowTask, max_of<int64_t>(row, 1)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t n = begin; n < end; ++n) body(n * row);
                    finish_streams(streamed);
                  });
}

template <class Kind, class T>
static void batch_norm_rows(const ops::BatchNormArgs<T>& args) {
  if (args.training) statistics_of_rows(args);
  const ChannelScales<T> channels(args);
  const ByPosition<T> mean(args, args.mean);
  const ByPosition<T> scale(args, channels.scale.get()), shift(args, channels.shift.get());
  const int64_t row = args.c * args.inner;
  const bool streamed = is_streamed<T>(args.n * row);
  const T a = args.epilogue.a, b = args.epilogue.b;
  each_row(args, streamed, [&](int64_t at) {
    write_line(args.result + at, row, streamed, [&](int64_t p, int64_t count) {
      Vec<T> v = (load_first(args.x + at + p, count) - mean.at(p, count)) * scale.at(p, count) +
                 shift.at(p, count);
      if (args.epilogue.residual) v += load_first(args.epilogue.residual + at + p, count);
      return Kind::template f<T>(v, a, b);
    });
  });
}

// grad_y f'(y), and for the residual: as GatedGradient and KeptGradient of batch_norm.cpp.
template <class Kind, class T>
static void batch_norm_rows_gradient(const ops::BatchNormArgs<T>& args) {
  const ChannelScales<T> channels(args);
  const ByPosition<T> mean(args, args.mean);
  const ByPosition<T> scale(args, channels.scale.get()), shift(args, channels.shift.get());
  const T a = args.epilogue.a, b = args.epilogue.b;
  const auto gated = [&](int64_t at, int64_t p, int64_t count, Vec<T> centred) {
    const Vec<T> g = load_first(args.grad_y + at, count);
    if constexpr (std::is_same_v<Kind, Kind_identity>)
      return g;
    else
      return Kind::template gradient<T>(g, centred * scale.at(p, count) + shift.at(p, count), a, b);
  };
  const auto kept = [&](int64_t at, int64_t count) {
    const Vec<T> g = Kind::template gradient<T>(load_first(args.grad_y + at, count),
                                                load_first(args.y + at, count), a, b);
    store_first(args.grad_residual + at, count, g);
    return g;
  };
  const Scratch<T> of_dot(args.c), of_sum(args.c);
  const auto slopes = [&](int64_t at, int64_t p, int64_t count, Vec<T>& sum, Vec<T>& dot) {
    const Vec<T> centred = load_first(args.x + at, count) - mean.at(p, count);
    const Vec<T> g = args.grad_residual ? kept(at, count) : gated(at, p, count, centred);
    sum += g;
    dot += g * centred;
  };
  const double m = double(args.n * args.inner);
  sums_of_rows(args, args.n, slopes, [&](int64_t c, const TwoSums& sums) {
    const T own = channels.scale[c], rstd = reciprocal_root<T>(args.var[c] + args.eps);
    args.grad_bias[c] = T(sums.first), args.grad_weight[c] = T(sums.second * rstd);
    of_dot[c] = T(own * rstd * rstd * sums.second / m), of_sum[c] = T(own * sums.first / m);
  });
  const int64_t row = args.c * args.inner;
  const bool streamed = args.result != args.grad_y && is_streamed<T>(args.n * row);
  const auto write = [&](const auto& value) {
    each_row(args, streamed, [&](int64_t at) {
      write_line(args.result + at, row, streamed, [&](int64_t p, int64_t count) {
        const Vec<T> centred = load_first(args.x + at + p, count) - mean.at(p, count);
        const Vec<T> g = args.grad_residual ? load_first(args.grad_residual + at + p, count)
                                            : gated(at + p, p, count, centred);
        return value(p, count, centred, g * scale.at(p, count));
      });
    });
  };
  if (!args.training)  // x is not in it, which may be Inf
    return write([](int64_t, int64_t, Vec<T>, Vec<T> own) { return own; });
  const ByPosition<T> dot(args, of_dot.get());
  const ByPosition<T> sum(args, of_sum.get());
  write([&](int64_t p, int64_t count, Vec<T> centred, Vec<T> own) {
    return own - (centred * dot.at(p, count) + sum.at(p, count));
  });
}

LAMINA_CPU_NAMESPACE_END
