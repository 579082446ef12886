// Batch, group, layer and instance norm: y = (x - mean) / sqrt(var + eps) * weight + bias.
//
// Method        two passes for the statistics (mean, then squared deviations), one for the result;
//               a set that fits the cache is read from memory once.
// Partitioning  one task per channel (batch norm) or per row (the others); the gradients to weight
//               and bias of the others are summed per channel, in order.
// Numerics      lines are summed in vectors and a fixed tree, lines of a set in double precision.
// Floor         one read and one write of the tensor (dgrad: two reads).
#include "ops/normalization.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::BatchNormArgs;
using ops::GroupNormArgs;

// Sum of a[i].
template <class T>
static double line_sum(const T* a, int64_t size) {
  Vec<T> sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes<T> <= size; i += 2 * kLanes<T>)
    for (int j = 0; j < 2; ++j) sums[j] += load(a + i + j * kLanes<T>);
  T tail = 0;
  for (; i < size; ++i) tail += a[i];
  return double(sum_lanes<T>(sums[0] + sums[1])) + double(tail);
}

// Sum of a[i] * (b[i] - shift), or of (b[i] - shift)^2 where a is null.
template <class T>
static double line_dot(const T* a, const T* b, T shift, int64_t size) {
  Vec<T> sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes<T> <= size; i += 2 * kLanes<T>)
    for (int j = 0; j < 2; ++j) {
      const Vec<T> centred = load(b + i + j * kLanes<T>) - shift;
      sums[j] += centred * (a ? load(a + i + j * kLanes<T>) : centred);
    }
  T tail = 0;
  for (; i < size; ++i) tail += (b[i] - shift) * (a ? a[i] : b[i] - shift);
  return double(sum_lanes<T>(sums[0] + sums[1])) + double(tail);
}

template <class T>
LAMINA_INLINE T reciprocal_root(T value) {
  return T(1 / __builtin_sqrt(double(value)));
}

// result = (x - mean) * scale + shift
template <class T>
static void affine_line(const T* x, T mean, T scale, T shift, T* result, int64_t size) {
  for (int64_t i = 0; i < size; ++i) result[i] = (x[i] - mean) * scale + shift;
}

// result = grad_y * slope - ((x - mean) * dot + sum)
template <class T>
static void gradient_line(const T* grad_y, const T* x, T slope, T mean, T dot, T sum, T* result,
                          int64_t size) {
  for (int64_t i = 0; i < size; ++i) result[i] = grad_y[i] * slope - ((x[i] - mean) * dot + sum);
}

template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  const double m = double(args.n * args.inner);
  const int64_t step = args.c * args.inner;
  parallel_for(args.c, [&](int64_t c) {
    const T* x = args.x + c * args.inner;
    if (args.training) {
      double sum = 0, squares = 0;
      for (int64_t n = 0; n < args.n; ++n) sum += line_sum(x + n * step, args.inner);
      args.mean[c] = T(sum / m);
      for (int64_t n = 0; n < args.n; ++n)
        squares += line_dot<T>(nullptr, x + n * step, args.mean[c], args.inner);
      args.var[c] = T(squares / m);
    }
    const T scale =
        reciprocal_root<T>(args.var[c] + args.eps) * (args.weight ? args.weight[c] : T(1));
    const T shift = args.bias ? args.bias[c] : T(0);
    for (int64_t n = 0; n < args.n; ++n)
      affine_line(x + n * step, args.mean[c], scale, shift, args.result + c * args.inner + n * step,
                  args.inner);
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
      sum += line_sum(args.grad_y + at + n * step, args.inner);
      dot += line_dot(args.grad_y + at + n * step, args.x + at + n * step, mean, args.inner);
    }
    args.grad_bias[c] = T(sum), args.grad_weight[c] = T(dot * rstd);
    const T slope = rstd * (args.weight ? args.weight[c] : T(1));
    const T of_dot = args.training ? T(slope * rstd * rstd * dot / m) : T(0);
    const T of_sum = args.training ? T(slope * sum / m) : T(0);
    for (int64_t n = 0; n < args.n; ++n)
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
    const T mean = T(line_sum(x, size) / double(size));
    const T var = T(line_dot<T>(nullptr, x, mean, size) / double(size));
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

template <class T>
void group_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels * args.inner;
  parallel_for(args.outer * args.groups, [&](int64_t row) {
    const T *x = args.x + row * size, *grad_y = args.grad_y + row * size;
    const T mean = args.mean[row], rstd = args.rstd[row];
    const int64_t first = row % args.groups * args.channels;
    double sum = 0, dot = 0;
    for (int64_t c = 0; c < args.channels; ++c) {
      const double weight = args.weight ? double(args.weight[first + c]) : 1.0;
      const int64_t at = c * args.inner;
      sum += weight * line_sum(grad_y + at, args.inner);
      dot += weight * line_dot(grad_y + at, x + at, mean, args.inner);
    }
    const T of_dot = T(double(rstd) * rstd * rstd * dot / double(size));
    const T of_sum = T(rstd * sum / double(size));
    for (int64_t c = 0; c < args.channels; ++c) {
      const int64_t at = c * args.inner;
      const T slope = rstd * (args.weight ? args.weight[first + c] : T(1));
      gradient_line(grad_y + at, x + at, slope, mean, of_dot, of_sum, args.result + row * size + at,
                    args.inner);
    }
  });
  parallel_for(args.groups * args.channels, [&](int64_t channel) {
    double sum = 0, dot = 0;
    for (int64_t o = 0; o < args.outer; ++o) {
      const int64_t row = o * args.groups + channel / args.channels;
      const int64_t at = row * size + channel % args.channels * args.inner;
      sum += line_sum(args.grad_y + at, args.inner);
      dot += args.rstd[row] * line_dot(args.grad_y + at, args.x + at, args.mean[row], args.inner);
    }
    args.grad_bias[channel] = T(sum), args.grad_weight[channel] = T(dot);
  });
}

LAMINA_INSTANTIATE(batch_norm_fprop_channels, BatchNormArgs)
LAMINA_INSTANTIATE(batch_norm_dgrad_channels, BatchNormArgs)
LAMINA_INSTANTIATE(group_norm_fprop_rows, GroupNormArgs)
LAMINA_INSTANTIATE(group_norm_dgrad_rows, GroupNormArgs)

LAMINA_CPU_NAMESPACE_END
