// Batch, group, layer and instance norm: y = (x - mean) / sqrt(var + eps) * weight + bias.
//
// Method        batch norm: both moments in one pass about the mean of a channel's first elements
//               (a second pass where that is more than a deviation off), then the result, backwards
//               through what the cache still holds. Rows of the others: mean, then squared
//               deviations, then the result. Gradients: both sums in one pass.
// Partitioning  one task per channel (batch norm; planes with given statistics) or per row (the
//               others). Gradients to weight and bias: sums of rows or of blocks of rows, added in
//               order.
// Numerics      lines are summed in vectors and a fixed tree, lines of a set in double precision.
// Floor         one read and one write of the tensor (dgrad: two reads).
#include "ops/normalization.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::BatchNormArgs;
using ops::GroupNormArgs;

inline constexpr int64_t kTaskElements = 16384;

// Two sums over i of what term(i, count, first, second) adds: a vector of elements at i.
struct TwoSums {
  double first = 0, second = 0;
};
template <class T, class Term>
LAMINA_INLINE TwoSums two_sums(int64_t size, const Term& term) {
  Vec<T> first[4] = {}, second[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= size; i += 4 * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) term(i + c * kLanes<T>, int64_t{kLanes<T>}, first[c], second[c]);
  for (; i < size; i += kLanes<T>)
    term(i, min_of<int64_t>(kLanes<T>, size - i), first[0], second[0]);
  return {double(sum_lanes<T>((first[0] + first[1]) + (first[2] + first[3]))),
          double(sum_lanes<T>((second[0] + second[1]) + (second[2] + second[3])))};
}

// Sums of x - shift and of its squares.
template <class T>
static TwoSums moments(const T* x, T shift, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& squares) {
    const Vec<T> centred = load_first(x + i, count, shift) - shift;
    sum += centred;
    squares += centred * centred;
  });
}

// Sums of grad_y and of grad_y (x - mean).
template <class T>
static TwoSums slopes(const T* grad_y, const T* x, T mean, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& dot) {
    const Vec<T> g = load_first(grad_y + i, count);
    sum += g;
    dot += g * (load_first(x + i, count, mean) - mean);
  });
}

// The same with grad_y * weight.
template <class T>
static TwoSums weighted_slopes(const T* grad_y, const T* weight, const T* x, T mean, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& dot) {
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

// result = (x - mean) * scale + shift
template <class T>
static void affine_line(const T* x, T mean, T scale, T shift, T* result, int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes<T>)
    store_first<T>(result + i, size - i, (load_first(x + i, size - i) - mean) * scale + shift);
}

// result = grad_y * slope - ((x - mean) * dot + sum)
template <class T>
static void gradient_line(const T* grad_y, const T* x, T slope, T mean, T dot, T sum, T* result,
                          int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes<T>) {
    const Vec<T> centred = load_first(x + i, size - i) - mean;
    store_first<T>(result + i, size - i,
                   load_first(grad_y + i, size - i) * slope - (centred * dot + sum));
  }
}

// Mean and variance of a channel: one pass about the mean of its first elements, and a second one
// where that lies so far from the mean that the difference of the sums would lose digits.
template <class T>
static void channel_statistics(const BatchNormArgs<T>& args, int64_t c) {
  const T* x = args.x + c * args.inner;
  const int64_t step = args.c * args.inner, sample = min_of<int64_t>(args.inner, 256);
  const double m = double(args.n * args.inner);
  T shift = sample > 0 ? T(moments(x, T(0), sample).first / double(sample)) : T(0);
  for (int pass = 0; pass < 2; ++pass) {
    double sum = 0, squares = 0;
    for (int64_t n = 0; n < args.n; ++n) {
      const TwoSums line = moments(x + n * step, shift, args.inner);
      sum += line.first, squares += line.second;
    }
    const double offset = sum / m, var = squares / m - offset * offset;
    args.mean[c] = T(shift + offset);
    args.var[c] = var < 0 ? T(0) : T(var);
    if (offset * offset <= var) return;
    shift = args.mean[c];
  }
}

// Channels, or with statistics that are given planes, in the order of memory.
template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  auto normalise = [&](int64_t n, int64_t c) {
    const T scale =
        reciprocal_root<T>(args.var[c] + args.eps) * (args.weight ? args.weight[c] : T(1));
    const T shift = args.bias ? args.bias[c] : T(0);
    const int64_t at = (n * args.c + c) * args.inner;
    affine_line(args.x + at, args.mean[c], scale, shift, args.result + at, args.inner);
  };
  if (!args.training) {
    const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(args.inner, 1));
    return parallel_ranges(args.n * args.c, grain, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) normalise(plane / args.c, plane % args.c);
    });
  }
  parallel_for(args.c, [&](int64_t c) {
    channel_statistics(args, c);
    // Backwards: the last planes are still in a cache.
    for (int64_t n = args.n - 1; n >= 0; --n) normalise(n, c);
  });
}

template <class T>
void batch_norm_dgrad_channels(const BatchNormArgs<T>& args) {
  const double m = double(args.n * args.inner);
  const int64_t step = args.c * args.inner;
  parallel_for(args.c, [&](int64_t c) {
    const int64_t at = c * args.inner;
    const T mean = args.mean[c], rstd = reciprocal_root<T>(args.var[c] + args.eps);
    double sum = 0, dot = 0;
    for (int64_t n = 0; n < args.n; ++n) {
      const TwoSums line =
          slopes(args.grad_y + at + n * step, args.x + at + n * step, mean, args.inner);
      sum += line.first, dot += line.second;
    }
    args.grad_bias[c] = T(sum), args.grad_weight[c] = T(dot * rstd);
    const T slope = rstd * (args.weight ? args.weight[c] : T(1));
    const T of_dot = args.training ? T(slope * rstd * rstd * dot / m) : T(0);
    const T of_sum = args.training ? T(slope * sum / m) : T(0);
    for (int64_t n = args.n - 1; n >= 0; --n)
      gradient_line(args.grad_y + at + n * step, args.x + at + n * step, slope, mean, of_dot,
                    of_sum, args.result + at + n * step, args.inner);
  });
}

// y = (x - mean) rstd weight + bias with a weight and bias of each element: a layer norm's row.
template <class T>
static void affine_elements(const T* x, T mean, T rstd, const T* weight, const T* bias, T* y,
                            int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes<T>) {
    const int64_t count = min_of<int64_t>(kLanes<T>, size - i);
    Vec<T> value = load_first(x + i, count) - mean;
    value *= weight ? rstd * load_first(weight + i, count) : broadcast<T>(rstd);
    if (bias) value += load_first(bias + i, count);
    store_first(y + i, count, value);
  }
}

template <class T>
void group_norm_fprop_rows(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels * args.inner;
  parallel_for(args.outer * args.groups, [&](int64_t row) {
    const T* x = args.x + row * size;
    T* y = args.result + row * size;
    const T mean = T(moments(x, T(0), size).first / double(size));
    const T var = T(moments(x, mean, size).second / double(size));
    const T rstd = reciprocal_root<T>(var + args.eps);
    args.mean[row] = mean, args.rstd[row] = rstd;
    const int64_t first = row % args.groups * args.channels;
    if (args.inner == 1) {
      affine_elements(x, mean, rstd, args.weight ? args.weight + first : nullptr,
                      args.bias ? args.bias + first : nullptr, y, size);
      return;
    }
    for (int64_t c = 0; c < args.channels; ++c)
      affine_line(x + c * args.inner, mean, rstd * (args.weight ? args.weight[first + c] : T(1)),
                  args.bias ? args.bias[first + c] : T(0), y + c * args.inner, args.inner);
  });
}

// grad_x of a row of elements with a weight each, from its sums; and what it adds to the gradients
// of weight and bias.
template <class T>
static void gradient_elements(const T* grad_y, const T* weight, const T* x, T mean, T rstd, T dot,
                              T sum, T* result, T* grad_weight, T* grad_bias, int64_t size) {
  for (int64_t i = 0; i < size; i += kLanes<T>) {
    const int64_t count = size - i;
    const Vec<T> g = load_first(grad_y + i, count), centred = load_first(x + i, count) - mean;
    const Vec<T> slope = weight ? rstd * load_first(weight + i, count) : broadcast<T>(rstd);
    store_first<T>(result + i, count, g * slope - (centred * dot + sum));
    store_first<T>(grad_weight + i, count,
                   load_first(grad_weight + i, count) + g * (centred * rstd));
    store_first<T>(grad_bias + i, count, load_first(grad_bias + i, count) + g);
  }
}

// inner == 1: blocks of rows, each with its own sums for weight and bias; blocks add up in order.
template <class T>
static void layer_norm_dgrad(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels, rows = args.outer, all = args.groups * size;
  const int64_t block = max_of<int64_t>(32, ceil_div(rows, 128)), blocks = ceil_div(rows, block);
  Scratch<T> partial(2 * blocks * all);
  parallel_for(blocks * args.groups, [&](int64_t task) {
    const int64_t index = task / args.groups, group = task % args.groups, first = group * size;
    T *own_weight = &partial[2 * index * all + first], *own_bias = own_weight + all;
    for (int64_t i = 0; i < size; ++i) own_weight[i] = own_bias[i] = 0;
    const T* weight = args.weight ? args.weight + first : nullptr;
    for (int64_t o = index * block; o < min_of(rows, (index + 1) * block); ++o) {
      const int64_t row = o * args.groups + group, at = row * size;
      const T mean = args.mean[row], rstd = args.rstd[row];
      const TwoSums sums = weighted_slopes(args.grad_y + at, weight, args.x + at, mean, size);
      gradient_elements(args.grad_y + at, weight, args.x + at, mean, rstd,
                        T(double(rstd) * rstd * rstd * sums.second / double(size)),
                        T(rstd * sums.first / double(size)), args.result + at, own_weight, own_bias,
                        size);
    }
  });
  parallel_ranges(all, kTaskElements / 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double weight = 0, bias = 0;
      for (int64_t index = 0; index < blocks; ++index)
        weight += partial[2 * index * all + i], bias += partial[(2 * index + 1) * all + i];
      args.grad_weight[i] = T(weight), args.grad_bias[i] = T(bias);
    }
  });
}

template <class T>
void group_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  if (args.inner == 1) return layer_norm_dgrad(args);
  const int64_t size = args.channels * args.inner, rows = args.outer * args.groups;
  Scratch<TwoSums> sums(rows * args.channels);  // of each channel of each row
  parallel_for(rows, [&](int64_t row) {
    const T *x = args.x + row * size, *grad_y = args.grad_y + row * size;
    const T mean = args.mean[row], rstd = args.rstd[row];
    const int64_t first = row % args.groups * args.channels;
    double sum = 0, dot = 0;
    for (int64_t c = 0; c < args.channels; ++c) {
      const double weight = args.weight ? double(args.weight[first + c]) : 1.0;
      const int64_t at = c * args.inner;
      const TwoSums line = slopes(grad_y + at, x + at, mean, args.inner);
      sums[row * args.channels + c] = line;
      sum += weight * line.first, dot += weight * line.second;
    }
    const T of_dot = T(double(rstd) * rstd * rstd * dot / double(size));
    const T of_sum = T(rstd * sum / double(size));
    for (int64_t c = args.channels - 1; c >= 0; --c) {
      const int64_t at = c * args.inner;
      const T slope = rstd * (args.weight ? args.weight[first + c] : T(1));
      gradient_line(grad_y + at, x + at, slope, mean, of_dot, of_sum, args.result + row * size + at,
                    args.inner);
    }
  });
  const int64_t all = args.groups * args.channels;
  parallel_ranges(all, kTaskElements / 16, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin; channel < end; ++channel) {
      double sum = 0, dot = 0;
      for (int64_t o = 0; o < args.outer; ++o) {
        const TwoSums& line = sums[o * all + channel];
        sum += line.first;
        dot += args.rstd[o * args.groups + channel / args.channels] * line.second;
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
