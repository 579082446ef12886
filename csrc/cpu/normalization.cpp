// Group, layer and instance norm: y = (x - mean) / sqrt(var + eps) * weight + bias; rms norm: a
// layer norm without mean and bias.
//
// Method        rows: both moments in one pass about the mean of a row's first elements (a second
//               pass where that is more than a deviation off), then the result. Gradients: both
//               sums in one pass; a layer norm sums a row as it writes the one before.
// Partitioning  one task per row. Gradients to weight and bias: sums of rows or of blocks of rows,
//               added in order.
// Numerics      lines are summed in vectors and a fixed tree, lines of a set in double precision.
// Floor         one read and one write of the tensor (dgrad: two reads).
#include "ops/normalization.h"

#include "cpu/line_norm.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::GroupNormArgs;

inline constexpr int64_t kTaskElements = 16384;
inline constexpr int64_t kColumns = 256;  // a task of the sums over blocks of rows

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
    affine_line<2>(x + c * args.inner, mean, rstd * (args.weight ? args.weight[first + c] : T(1)),
                   args.bias ? args.bias[first + c] : T(0), y + c * args.inner, args.inner,
                   streamed, x + size + c * args.inner / 2,
                   [](int64_t, int64_t, Vec<T> v) { return v; });
}

template <class T>
static void rms_norm_row(const GroupNormArgs<T>& args, int64_t row, bool streamed) {
  constexpr int64_t kBlock = 1024;  // elements whose squares are added in T
  const int64_t size = args.channels;
  const T* x = args.x + row * size;
  double squares = 0;
  for (int64_t i = 0; i < size; i += kBlock)
    squares += moments(x + i, T(0), min_of(kBlock, size - i)).total().second;
  const T rstd = reciprocal_root<T>(T(squares / double(size)) + args.eps);
  args.rstd[row] = rstd;
  affine_elements<T>(x, T(0), rstd, args.weight, nullptr, args.result + row * size, size, streamed);
}

// row(row, streamed) of all rows.
template <class T, class Row>
static void for_each_row(const GroupNormArgs<T>& args, const Row& one) {
  const int64_t rows = args.outer * args.groups, size = args.channels * args.inner;
  const bool streamed = is_streamed<T>(rows * size);
  const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(size, 1));
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) one(args, row, streamed);
    finish_streams(streamed);
  });
}

template <class T>
void group_norm_fprop_rows(const GroupNormArgs<T>& args) {
  for_each_row(args, group_norm_row<T>);
}

template <class T>
void rms_norm_fprop_rows(const GroupNormArgs<T>& args) {
  for_each_row(args, rms_norm_row<T>);
}

// A row of a layer norm on the way back, and its sums of g = grad_y weight and of g (x - mean).
// Centred: else it is one of an rms norm, which has no mean, and no gradient of a bias.
template <class T, bool Centred>
struct NormRow {
  const T *grad_y, *x, *weight;
  T* grad_x;
  T mean, rstd;
  Vec<T> sum = {}, dot = {};

  NormRow(const GroupNormArgs<T>& args, int64_t row, const T* own_weight) : weight(own_weight) {
    const int64_t size = args.channels;
    grad_y = args.grad_y + row * size, x = args.x + row * size, grad_x = args.result + row * size;
    mean = Centred ? args.mean[row] : T(0), rstd = args.rstd[row];
  }
  LAMINA_INLINE Vec<T> factor(int64_t i, int64_t count) const {
    return weight ? load_first(weight + i, count) : broadcast<T>(T(1));
  }
  LAMINA_INLINE void add(int64_t i, int64_t count) {
    const Vec<T> g = load_first(grad_y + i, count) * factor(i, count);
    if constexpr (Centred) sum += g;
    dot += g * (load_first(x + i, count, mean) - mean);
  }
  LAMINA_INLINE void add_from(int64_t i, int64_t size) {
    for (; i < size; i += kLanes<T>) add(i, min_of<int64_t>(kLanes<T>, size - i));
  }
};

// grad_x of a row, and what it adds to the gradients of weight and bias. Meanwhile the sums of the
// next row, so that memory is read all the time; before the stores, because a load waits for stores
// whose addresses differ from its own by multiples of 4 KiB.
template <class T, bool Centred>
static void gradient_row(const NormRow<T, Centred>& summed, NormRow<T, Centred>* following,
                         T* grad_weight, T* grad_bias, int64_t size, bool streamed) {
  // Copies: the compiler would read what a store may have changed again.
  const NormRow<T, Centred> row = summed;
  NormRow<T, Centred> next = following ? *following : summed;
  const double cubed = double(row.rstd) * row.rstd * row.rstd;
  const T dot = T(cubed * double(sum_lanes<T>(row.dot)) / double(size));
  const T sum = T(row.rstd * double(sum_lanes<T>(row.sum)) / double(size));
  auto write = [&](int64_t i, int64_t count) {
    const Vec<T> g = load_first(row.grad_y + i, count);
    const Vec<T> centred = load_first(row.x + i, count) - row.mean;
    const Vec<T> of_weight = load_first(grad_weight + i, count) + g * (centred * row.rstd);
    const Vec<T> of_bias = Centred ? load_first(grad_bias + i, count) + g : g;
    store_result<T>(row.grad_x + i, count,
                    g * (row.rstd * row.factor(i, count)) - (centred * dot + sum), streamed);
    store_first(grad_weight + i, count, of_weight);
    if constexpr (Centred) store_first(grad_bias + i, count, of_bias);
  };
  // What is streamed has to be written in whole lines of memory.
  const int64_t place = reinterpret_cast<intptr_t>(row.grad_x) / static_cast<int64_t>(sizeof(T));
  int64_t i = streamed ? min_of<int64_t>(-place & (kLanes<T> - 1), size) : 0, j = 0;
  if (i > 0) write(0, i);
  constexpr int64_t kAhead = kPrefetchBytes / static_cast<int64_t>(sizeof(T));
  if (following)
    for (; i + kLanes<T> <= size; i += kLanes<T>, j += kLanes<T>) {
      if (!streamed) __builtin_prefetch(next.grad_x + j, 1);
      __builtin_prefetch(next.grad_y + j + kAhead);
      __builtin_prefetch(next.x + j + kAhead);
      next.add(j, kLanes<T>);
      write(i, kLanes<T>);
    }
  for (; i < size; i += kLanes<T>) write(i, min_of<int64_t>(kLanes<T>, size - i));
  if (!following) return;
  next.add_from(j, size);
  *following = next;
}

// inner == 1: blocks of rows, each with its own sums for weight and bias; blocks add up in order.
template <bool Centred, class T>
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
    using Row = NormRow<T, Centred>;
    auto at = [&](int64_t o) { return Row(args, o * args.groups + group, weight); };
    Row row = at(index * block);
    row.add_from(0, size);
    for (int64_t o = index * block + 1; o < end; ++o) {
      Row next = at(o);
      gradient_row(row, &next, own_weight, own_bias, size, streamed);
      row = next;
    }
    gradient_row<T, Centred>(row, nullptr, own_weight, own_bias, size, streamed);
    finish_streams(streamed);
  });
  parallel_ranges(all, kColumns, [&](int64_t begin, int64_t end) {
    double weight[kColumns] = {}, bias[kColumns] = {};
    for (int64_t index = 0; index < blocks; ++index) {
      const T *of_weight = &partial[2 * index * all + begin], *of_bias = of_weight + all;
      for (int64_t i = 0; i < end - begin; ++i)
        weight[i] += double(of_weight[i]), bias[i] += double(of_bias[i]);
    }
    for (int64_t i = begin; i < end; ++i) {
      args.grad_weight[i] = T(weight[i - begin]);
      if (Centred) args.grad_bias[i] = T(bias[i - begin]);
    }
  });
}

template <class T>
void group_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  if (args.inner == 1) return layer_norm_dgrad<true>(args);
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
      const TwoSums line = slopes(x + at, mean, args.inner, StoredGradient<T>{grad_y + at}).total();
      sums[row * args.channels + c] = line;
      sum += weight * line.first, dot += weight * line.second;
    }
    const T of_dot = T(double(rstd) * rstd * rstd * dot / double(size));
    const T of_sum = T(rstd * sum / double(size));
    for (int64_t k = 0; k < args.channels; ++k) {
      // What is larger than a cache is read backwards: its end is still there.
      const int64_t c = size <= kCached ? k : args.channels - 1 - k, at = c * args.inner;
      const T slope = rstd * (args.weight ? args.weight[first + c] : T(1));
      gradient_line(x + at, slope, mean, of_dot, of_sum, args.result + row * size + at, args.inner,
                    streamed, x + size + k * args.inner / 2, grad_y + size + k * args.inner / 2,
                    StoredGradient<T>{grad_y + at});
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

template <class T>
void rms_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  layer_norm_dgrad<false>(args);
}

LAMINA_INSTANTIATE(group_norm_fprop_rows, GroupNormArgs)
LAMINA_INSTANTIATE(group_norm_dgrad_rows, GroupNormArgs)
LAMINA_INSTANTIATE(rms_norm_fprop_rows, GroupNormArgs)
LAMINA_INSTANTIATE(rms_norm_dgrad_rows, GroupNormArgs)

LAMINA_CPU_NAMESPACE_END
