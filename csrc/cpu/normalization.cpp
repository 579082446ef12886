// Batch, group, layer and instance norm: y = (x - mean) / sqrt(var + eps) * weight + bias.
//
// Method        batch norm: both moments in one pass about the mean of a channel's first elements
//               (a second pass where that is more than a deviation off), then the result, backwards
//               through what the cache still holds. Rows of the others: mean, then squared
//               deviations, then the result. Gradients: both sums in one pass.
// Partitioning  one task per channel, or several with short lines (batch norm; planes with given
//               statistics), or per row (the others). Gradients to weight and bias: sums of rows or
//               of blocks of rows, added in order.
// Numerics      lines are summed in vectors and a fixed tree, lines of a set in double precision.
// Floor         one read and one write of the tensor (dgrad: two reads).
#include "ops/normalization.h"

#include <type_traits>

#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::BatchNormArgs;
using ops::GroupNormArgs;

inline constexpr int64_t kTaskElements = 16384;
inline constexpr int64_t kMostChannels = 16, kRun = 2048;  // of a batch norm's task: kRun elements
inline constexpr int64_t kColumns = 256;                   // a task of the sums over blocks of rows
inline constexpr int64_t kCached = 32768;  // elements of each of three tensors that L2 holds

struct TwoSums {
  double first = 0, second = 0;
};
// The same before the lanes are summed.
template <class T>
struct LaneSums {
  Vec<T> first, second;
  LAMINA_INLINE TwoSums total() const {
    return {double(sum_lanes<T>(first)), double(sum_lanes<T>(second))};
  }
};
// Two sums over i of what term(i, count, first, second) adds: a vector of elements at i.
template <class T, class Term>
LAMINA_INLINE LaneSums<T> two_sums(int64_t size, const Term& term) {
  Vec<T> first[4] = {}, second[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= size; i += 4 * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) term(i + c * kLanes<T>, int64_t{kLanes<T>}, first[c], second[c]);
  for (; i < size; i += kLanes<T>)
    term(i, min_of<int64_t>(kLanes<T>, size - i), first[0], second[0]);
  return {(first[0] + first[1]) + (first[2] + first[3]),
          (second[0] + second[1]) + (second[2] + second[3])};
}

// The sums of a set of lines: lane by lane for some of them, in double precision from then on.
template <class T>
class LineSums {
 public:
  LAMINA_INLINE void add(const LaneSums<T>& line) {
    lanes_.first += line.first, lanes_.second += line.second;
    if (++lines_ == kLines) flush();
  }
  LAMINA_INLINE TwoSums total() {
    flush();
    return sum_;
  }

 private:
  static constexpr int kLines = 16;
  LAMINA_INLINE void flush() {
    const TwoSums some = lanes_.total();
    sum_.first += some.first, sum_.second += some.second;
    lanes_ = LaneSums<T>{}, lines_ = 0;
  }

  LaneSums<T> lanes_ = {};
  TwoSums sum_;
  int lines_ = 0;
};

// Sums of x - shift and of its squares.
template <class T>
LAMINA_INLINE static LaneSums<T> moments(const T* x, T shift, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& squares) {
    const Vec<T> centred = load_first(x + i, count, shift) - shift;
    sum += centred;
    squares += centred * centred;
  });
}

// Sums of grad_y and of grad_y (x - mean).
template <class T>
LAMINA_INLINE static LaneSums<T> slopes(const T* grad_y, const T* x, T mean, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& dot) {
    const Vec<T> g = load_first(grad_y + i, count);
    sum += g;
    dot += g * (load_first(x + i, count, mean) - mean);
  });
}

// The same with grad_y * weight; asks for `wanted`, which is written next.
template <class T>
static LaneSums<T> weighted_slopes(const T* grad_y, const T* weight, const T* x, T mean,
                                   const T* wanted, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& dot) {
    if (wanted) __builtin_prefetch(wanted + i, 1);
    Vec<T> g = load_first(grad_y + i, count);
    if (weight) g *= load_first(weight + i, count);
    sum += g;
    dot += g * (load_first(x + i, count, mean) - mean);
  });
}

template <class T>
LAMINA_INLINE T reciprocal_root(T value) {
  return T(1 / __builtin_sqrt(double(value)));
}

// result = (x - mean) * scale + shift. Asks for `wanted`, which is read next.
template <class T>
static void affine_line(const T* x, T mean, T scale, T shift, T* result, int64_t size,
                        bool streamed, const T* wanted) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    __builtin_prefetch(wanted + i);
    return (load_first(x + i, count) - mean) * scale + shift;
  });
}

// result = grad_y * slope - ((x - mean) * dot + sum)
template <class T>
static void gradient_line(const T* grad_y, const T* x, T slope, T mean, T dot, T sum, T* result,
                          int64_t size, bool streamed) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    const Vec<T> centred = load_first(x + i, count) - mean;
    return load_first(grad_y + i, count) * slope - (centred * dot + sum);
  });
}

// Neighbouring channels of a task: their short lines are one run of memory in every image.
static int64_t channels_of_task(int64_t inner) {
  return min_of<int64_t>(kMostChannels, ceil_div(kRun, max_of<int64_t>(inner, 1)));
}

// The mean of a few elements, from which sums of squares lose no digits.
template <class T>
static T near_mean(const T* x, int64_t size, int64_t most) {
  const int64_t sample = min_of(size, most);
  return sample > 0 ? T(moments(x, T(0), sample).total().first / double(sample)) : T(0);
}

// Mean and variance of `count` elements from their moments about `shift`. False where that lies so
// far from the mean that the difference of the sums has lost digits.
template <class T>
static bool take_moments(const TwoSums& sums, double count, T shift, T& mean, T& var) {
  const double offset = sums.first / count, square = sums.second / count - offset * offset;
  mean = T(shift + offset), var = square < 0 ? T(0) : T(square);
  return offset * offset <= square;
}

// Means and variances of channels [begin, end): one pass about the mean of a channel's first
// elements, and where that is too far off, a second one.
template <class T>
static void channel_statistics(const BatchNormArgs<T>& args, int64_t begin, int64_t end) {
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
        sums[c].add(moments(x, shift[c], args.inner));
      }
    for (int64_t c = 0; c < count; ++c) {
      if (!again[c]) continue;
      T &mean = args.mean[begin + c], &var = args.var[begin + c];
      again[c] = !take_moments(sums[c].total(), double(args.n * args.inner), shift[c], mean, var);
      shift[c] = mean;
    }
  }
}

// Groups of channels, or with statistics that are given planes, in the order of memory.
template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  const bool streamed = is_streamed<T>(args.n * args.c * args.inner);
  auto scale_of = [&](int64_t c) {
    return reciprocal_root<T>(args.var[c] + args.eps) * (args.weight ? args.weight[c] : T(1));
  };
  auto normalise = [&](int64_t n, int64_t c, T scale) {
    const T shift = args.bias ? args.bias[c] : T(0);
    const int64_t at = (n * args.c + c) * args.inner;
    const bool fetch = args.training && args.inner < kRun && n > 0;  // the image before
    affine_line(args.x + at, args.mean[c], scale, shift, args.result + at, args.inner, streamed,
                args.x + (fetch ? at - args.c * args.inner : at));
  };
  if (!args.training) {
    const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(args.inner, 1));
    return parallel_ranges(args.n * args.c, grain, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane)
        normalise(plane / args.c, plane % args.c, scale_of(plane % args.c));
      finish_streams(streamed);
    });
  }
  parallel_ranges(args.c, channels_of_task(args.inner), [&](int64_t begin, int64_t end) {
    channel_statistics(args, begin, end);
    T scale[kMostChannels];
    for (int64_t c = begin; c < end; ++c) scale[c - begin] = scale_of(c);
    // Backwards: the last planes are still in a cache.
    for (int64_t n = args.n - 1; n >= 0; --n)
      for (int64_t c = begin; c < end; ++c) normalise(n, c, scale[c - begin]);
    finish_streams(streamed);
  });
}

template <class T>
void batch_norm_dgrad_channels(const BatchNormArgs<T>& args) {
  const bool streamed = args.result != args.grad_y && is_streamed<T>(args.n * args.c * args.inner);
  const double m = double(args.n * args.inner);
  parallel_ranges(args.c, channels_of_task(args.inner), [&](int64_t begin, int64_t end) {
    LineSums<T> sums[kMostChannels];
    for (int64_t n = 0; n < args.n; ++n)
      for (int64_t c = begin; c < end; ++c) {
        const int64_t at = (n * args.c + c) * args.inner;
        if (!streamed) prefetch_line(args.result + at, args.inner);
        sums[c - begin].add(slopes(args.grad_y + at, args.x + at, args.mean[c], args.inner));
      }
    T slope[kMostChannels], of_dot[kMostChannels], of_sum[kMostChannels];
    for (int64_t c = begin; c < end; ++c) {
      const T rstd = reciprocal_root<T>(args.var[c] + args.eps);
      const auto [sum, dot] = sums[c - begin].total();
      const T own = rstd * (args.weight ? args.weight[c] : T(1));
      args.grad_bias[c] = T(sum), args.grad_weight[c] = T(dot * rstd);
      slope[c - begin] = own;
      of_dot[c - begin] = args.training ? T(own * rstd * rstd * dot / m) : T(0);
      of_sum[c - begin] = args.training ? T(own * sum / m) : T(0);
    }
    const bool cached = args.n * (end - begin) * args.inner <= kCached;
    for (int64_t k = 0; k < args.n; ++k)
      for (int64_t c = begin; c < end; ++c) {
        const int64_t n = cached ? k : args.n - 1 - k;
        const int64_t at = (n * args.c + c) * args.inner, own = c - begin;
        gradient_line(args.grad_y + at, args.x + at, slope[own], args.mean[c], of_dot[own],
                      of_sum[own], args.result + at, args.inner, streamed);
      }
    finish_streams(streamed);
  });
}

// y = (x - mean) rstd weight + bias with a weight and bias of each element: a layer norm's row.
template <class T>
static void affine_elements(const T* x, T mean, T rstd, const T* weight, const T* bias, T* y,
                            int64_t size, bool streamed) {
  write_line(y, size, streamed, [&](int64_t i, int64_t count) {
    __builtin_prefetch(x + size + i);  // the next row
    Vec<T> value = load_first(x + i, count) - mean;
    value *= weight ? rstd * load_first(weight + i, count) : broadcast<T>(rstd);
    if (bias) value += load_first(bias + i, count);
    return value;
  });
}

template <class T>
static void group_norm_row(const GroupNormArgs<T>& args, int64_t row, bool streamed) {
  const int64_t size = args.channels * args.inner, first = row % args.groups * args.channels;
  const T* x = args.x + row * size;
  T* y = args.result + row * size;
  const T shift = near_mean(x, size, 64);
  T mean, var;
  if (!take_moments(moments(x, shift, size).total(), double(size), shift, mean, var))
    take_moments(moments(x, T(mean), size).total(), double(size), T(mean), mean, var);
  const T rstd = reciprocal_root<T>(var + args.eps);
  args.mean[row] = mean, args.rstd[row] = rstd;
  if (args.inner == 1)
    return affine_elements(x, mean, rstd, args.weight ? args.weight + first : nullptr,
                           args.bias ? args.bias + first : nullptr, y, size, streamed);
  for (int64_t c = 0; c < args.channels; ++c)
    affine_line(x + c * args.inner, mean, rstd * (args.weight ? args.weight[first + c] : T(1)),
                args.bias ? args.bias[first + c] : T(0), y + c * args.inner, args.inner, streamed,
                x + size + c * args.inner);
}

template <class T>
void group_norm_fprop_rows(const GroupNormArgs<T>& args) {
  const int64_t rows = args.outer * args.groups, size = args.channels * args.inner;
  const bool streamed = is_streamed<T>(rows * size);
  const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(size, 1));
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) group_norm_row(args, row, streamed);
    finish_streams(streamed);
  });
}

// A row of a layer norm on the way back.
template <class T>
struct NormRow {
  const T *grad_y, *x;
  T* grad_x;
  T mean, rstd, dot, sum;

  NormRow() = default;
  NormRow(const GroupNormArgs<T>& args, int64_t row, const T* weight, bool streamed) {
    const int64_t size = args.channels;
    grad_y = args.grad_y + row * size, x = args.x + row * size, grad_x = args.result + row * size;
    mean = args.mean[row], rstd = args.rstd[row];
    const TwoSums sums =
        weighted_slopes(grad_y, weight, x, mean, streamed ? nullptr : grad_x, size).total();
    dot = T(double(rstd) * rstd * rstd * sums.second / double(size));
    sum = T(rstd * sums.first / double(size));
  }
};

// grad_x of rows of elements with a weight each; and what they add, row by row, to the gradients of
// weight and bias, which wait in registers. A result that is streamed follows on its own: it has
// to be written in whole lines of memory.
template <class T, int ROWS, bool STREAMED>
static void gradient_elements(const NormRow<T>* row, const T* weight, T* grad_weight, T* grad_bias,
                              int64_t size, int64_t distance) {
  // Copies: the compiler would read what a store may have changed again.
  const T *grad_y[ROWS], *x[ROWS];
  T* grad_x[ROWS];
  Vec<T> mean[ROWS], rstd[ROWS], dot[ROWS], sum[ROWS];
#pragma GCC unroll 2
  for (int r = 0; r < ROWS; ++r) {
    grad_y[r] = row[r].grad_y, x[r] = row[r].x, grad_x[r] = row[r].grad_x;
    mean[r] = broadcast(row[r].mean), rstd[r] = broadcast(row[r].rstd);
    dot[r] = broadcast(row[r].dot), sum[r] = broadcast(row[r].sum);
  }
  auto factor = [&](int64_t i, int64_t count) {
    return weight ? load_first(weight + i, count) : broadcast<T>(T(1));
  };
  along_line<T>(size, [&](int64_t i, int64_t count) {
    Vec<T> of_weight = load_first(grad_weight + i, count);
    Vec<T> of_bias = load_first(grad_bias + i, count);
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; ++r) {
      const Vec<T> g = load_first(grad_y[r] + i, count);
      const Vec<T> centred = load_first(x[r] + i, count) - mean[r];
      __builtin_prefetch(grad_y[r] + ROWS * distance + i);  // the next rows, whose sums come first
      __builtin_prefetch(x[r] + ROWS * distance + i);
      if constexpr (!STREAMED)
        store_first<T>(grad_x[r] + i, count,
                       g * (rstd[r] * factor(i, count)) - (centred * dot[r] + sum[r]));
      of_weight += g * (centred * rstd[r]), of_bias += g;
    }
    store_first(grad_weight + i, count, of_weight);
    store_first(grad_bias + i, count, of_bias);
  });
  for (int r = 0; r < ROWS && STREAMED; ++r)
    write_line(grad_x[r], size, true, [&](int64_t i, int64_t count) {
      const Vec<T> centred = load_first(x[r] + i, count) - mean[r];
      return load_first(grad_y[r] + i, count) * (rstd[r] * factor(i, count)) -
             (centred * dot[r] + sum[r]);
    });
}

// inner == 1: blocks of rows, each with its own sums for weight and bias; blocks add up in order.
template <class T>
static void layer_norm_dgrad(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels, rows = args.outer, all = args.groups * size;
  const int64_t block = max_of<int64_t>(32, ceil_div(rows, 128)), blocks = ceil_div(rows, block);
  const bool streamed = is_streamed<T>(rows * all);
  Scratch<T> partial(2 * blocks * all);
  parallel_for(blocks * args.groups, [&](int64_t task) {
    const int64_t index = task / args.groups, group = task % args.groups, first = group * size;
    T *own_weight = &partial[2 * index * all + first], *own_bias = own_weight + all;
    for (int64_t i = 0; i < size; ++i) own_weight[i] = own_bias[i] = 0;
    const T* weight = args.weight ? args.weight + first : nullptr;
    const int64_t end = min_of(rows, (index + 1) * block);
    int64_t o = index * block;
    auto take = [&]<int ROWS>(std::integral_constant<int, ROWS>) {
      for (; o + ROWS <= end; o += ROWS) {
        NormRow<T> some[ROWS];
        for (int r = 0; r < ROWS; ++r)
          some[r] = NormRow<T>(args, (o + r) * args.groups + group, weight, streamed);
        if (streamed)
          gradient_elements<T, ROWS, true>(some, weight, own_weight, own_bias, size, all);
        else
          gradient_elements<T, ROWS, false>(some, weight, own_weight, own_bias, size, all);
      }
    };
    take(std::integral_constant<int, 2>{});  // more would share a set of L1 where rows are 4 KiB
    take(std::integral_constant<int, 1>{});
    finish_streams(streamed);
  });
  parallel_ranges(all, kColumns, [&](int64_t begin, int64_t end) {
    double weight[kColumns] = {}, bias[kColumns] = {};
    for (int64_t index = 0; index < blocks; ++index) {
      const T *of_weight = &partial[2 * index * all + begin], *of_bias = of_weight + all;
      for (int64_t i = 0; i < end - begin; ++i)
        weight[i] += double(of_weight[i]), bias[i] += double(of_bias[i]);
    }
    for (int64_t i = begin; i < end; ++i)
      args.grad_weight[i] = T(weight[i - begin]), args.grad_bias[i] = T(bias[i - begin]);
  });
}

template <class T>
void group_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  if (args.inner == 1) return layer_norm_dgrad(args);
  const int64_t size = args.channels * args.inner, rows = args.outer * args.groups;
  const bool streamed = is_streamed<T>(rows * size);
  Scratch<TwoSums> sums(rows * args.channels);  // of each channel of each row
  parallel_for(rows, [&](int64_t row) {
    const T *x = args.x + row * size, *grad_y = args.grad_y + row * size;
    const T mean = args.mean[row], rstd = args.rstd[row];
    const int64_t first = row % args.groups * args.channels;
    double sum = 0, dot = 0;
    for (int64_t c = 0; c < args.channels; ++c) {
      const double weight = args.weight ? double(args.weight[first + c]) : 1.0;
      const int64_t at = c * args.inner;
      if (!streamed) prefetch_line(args.result + row * size + at, args.inner);
      const TwoSums line = slopes(grad_y + at, x + at, mean, args.inner).total();
      sums[row * args.channels + c] = line;
      sum += weight * line.first, dot += weight * line.second;
    }
    const T of_dot = T(double(rstd) * rstd * rstd * dot / double(size));
    const T of_sum = T(rstd * sum / double(size));
    for (int64_t k = 0; k < args.channels; ++k) {
      // What is larger than a cache is read backwards: its end is still there.
      const int64_t c = size <= kCached ? k : args.channels - 1 - k, at = c * args.inner;
      const T slope = rstd * (args.weight ? args.weight[first + c] : T(1));
      gradient_line(grad_y + at, x + at, slope, mean, of_dot, of_sum, args.result + row * size + at,
                    args.inner, streamed);
    }
    finish_streams(streamed);
  });
  const int64_t all = args.groups * args.channels;
  parallel_ranges(all, kTaskElements / 16, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin; channel < end; ++channel) {
      const int64_t group = channel / args.channels;
      double sum = 0, dot = 0;
      for (int64_t o = 0; o < args.outer; ++o) {
        const TwoSums& line = sums[o * all + channel];
        sum += line.first;
        dot += args.rstd[o * args.groups + group] * line.second;
      }
      args.grad_bias[channel] = T(sum), args.grad_weight[channel] = T(dot);
    }
  });
}

LAMINA_INSTANTIATE(batch_norm_fprop_channels, BatchNormArgs)
LAMINA_INSTANTIATE(batch_norm_dgrad_channels, BatchNormArgs)
LAMINA_INSTANTIATE(group_norm_fprop_rows, GroupNormArgs)
LAMINA_INSTANTIATE(group_norm_dgrad_rows, GroupNormArgs)

LAMINA_CPU_NAMESPACE_END
