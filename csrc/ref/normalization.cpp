// Normalisation, reference: the formulas of ops/normalization.h, sums in double.
#include "ops/normalization.h"

#include <cmath>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

using ops::BatchNormArgs;
using ops::GroupNormArgs;

// Calls body(flat index) for every element of channel c.
template <class T, class Body>
void for_each_in_channel(const BatchNormArgs<T>& args, int64_t c, Body body) {
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t i = 0; i < args.inner; ++i) body((n * args.c + c) * args.inner + i);
}

template <class T>
double or_one(const T* weight, int64_t c) {
  return weight ? static_cast<double>(weight[c]) : 1;
}

}  // namespace

template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  const double m = static_cast<double>(args.n * args.inner);
  for (int64_t c = 0; c < args.c; ++c) {
    double mean = args.mean[c], var = args.var[c];
    if (args.training) {
      mean = var = 0;
      for_each_in_channel(args, c, [&](int64_t i) { mean += args.x[i] / m; });
      for_each_in_channel(args, c,
                          [&](int64_t i) { var += (args.x[i] - mean) * (args.x[i] - mean) / m; });
      args.mean[c] = static_cast<T>(mean), args.var[c] = static_cast<T>(var);
    }
    const double scale = or_one(args.weight, c) / std::sqrt(var + args.eps);
    const double shift = args.bias ? static_cast<double>(args.bias[c]) : 0;
    for_each_in_channel(args, c, [&](int64_t i) {
      args.result[i] = static_cast<T>((args.x[i] - mean) * scale + shift);
    });
  }
}

template <class T>
void batch_norm_dgrad_channels(const BatchNormArgs<T>& args) {
  const double m = static_cast<double>(args.n * args.inner);
  for (int64_t c = 0; c < args.c; ++c) {
    const double rstd = 1 / std::sqrt(static_cast<double>(args.var[c]) + args.eps);
    auto h = [&](int64_t i) { return (args.x[i] - static_cast<double>(args.mean[c])) * rstd; };
    double sum = 0, dot = 0;
    for_each_in_channel(args, c, [&](int64_t i) {
      sum += args.grad_y[i];
      dot += args.grad_y[i] * h(i);
    });
    args.grad_bias[c] = static_cast<T>(sum), args.grad_weight[c] = static_cast<T>(dot);
    for_each_in_channel(args, c, [&](int64_t i) {
      const double centred = args.training ? args.grad_y[i] - sum / m - h(i) * dot / m
                                           : static_cast<double>(args.grad_y[i]);
      args.result[i] = static_cast<T>(or_one(args.weight, c) * rstd * centred);
    });
  }
}

template <class T>
void group_norm_fprop_rows(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels * args.inner;
  for (int64_t row = 0; row < args.outer * args.groups; ++row) {
    const T* x = args.x + row * size;
    double mean = 0, var = 0;
    for (int64_t i = 0; i < size; ++i) mean += x[i] / static_cast<double>(size);
    for (int64_t i = 0; i < size; ++i)
      var += (x[i] - mean) * (x[i] - mean) / static_cast<double>(size);
    const double rstd = 1 / std::sqrt(var + args.eps);
    args.mean[row] = static_cast<T>(mean), args.rstd[row] = static_cast<T>(rstd);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t c = row % args.groups * args.channels + i / args.inner;
      const double shift = args.bias ? static_cast<double>(args.bias[c]) : 0;
      args.result[row * size + i] =
          static_cast<T>((x[i] - mean) * rstd * or_one(args.weight, c) + shift);
    }
  }
}

template <class T>
void group_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels * args.inner;
  for (int64_t c = 0; c < args.groups * args.channels; ++c) {
    double sum = 0, dot = 0;
    for (int64_t i = 0; i < args.outer * args.groups * size; ++i) {
      const int64_t row = i / size;
      if (row % args.groups * args.channels + i % size / args.inner != c) continue;
      sum += args.grad_y[i];
      dot += args.grad_y[i] * (args.x[i] - static_cast<double>(args.mean[row])) * args.rstd[row];
    }
    args.grad_bias[c] = static_cast<T>(sum), args.grad_weight[c] = static_cast<T>(dot);
  }
  for (int64_t row = 0; row < args.outer * args.groups; ++row) {
    const double rstd = args.rstd[row], mean = args.mean[row];
    auto h = [&](int64_t i) { return (args.x[row * size + i] - mean) * rstd; };
    auto g = [&](int64_t i) {
      const int64_t c = row % args.groups * args.channels + i / args.inner;
      return args.grad_y[row * size + i] * or_one(args.weight, c);
    };
    double sum = 0, dot = 0;
    for (int64_t i = 0; i < size; ++i) sum += g(i), dot += g(i) * h(i);
    for (int64_t i = 0; i < size; ++i)
      args.result[row * size + i] = static_cast<T>(
          rstd * (g(i) - sum / static_cast<double>(size) - h(i) * dot / static_cast<double>(size)));
  }
}

template <class T>
void rms_norm_fprop_rows(const GroupNormArgs<T>& args) {
  for (int64_t row = 0; row < args.outer; ++row) {
    const T* x = args.x + row * args.channels;
    double squares = 0;
    for (int64_t i = 0; i < args.channels; ++i)
      squares += static_cast<double>(x[i]) * x[i] / static_cast<double>(args.channels);
    const double rstd = 1 / std::sqrt(squares + args.eps);
    args.rstd[row] = static_cast<T>(rstd);
    for (int64_t i = 0; i < args.channels; ++i)
      args.result[row * args.channels + i] = static_cast<T>(x[i] * rstd * or_one(args.weight, i));
  }
}

template <class T>
void rms_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  const int64_t size = args.channels;
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (int64_t row = 0; row < args.outer; ++row)
      sum += static_cast<double>(args.grad_y[row * size + i]) * args.x[row * size + i] *
             args.rstd[row];
    args.grad_weight[i] = static_cast<T>(sum);
  }
  for (int64_t row = 0; row < args.outer; ++row) {
    const double rstd = args.rstd[row];
    auto g = [&](int64_t i) { return args.grad_y[row * size + i] * or_one(args.weight, i); };
    auto h = [&](int64_t i) { return args.x[row * size + i] * rstd; };
    double dot = 0;
    for (int64_t i = 0; i < size; ++i) dot += g(i) * h(i) / static_cast<double>(size);
    for (int64_t i = 0; i < size; ++i)
      args.result[row * size + i] = static_cast<T>(rstd * (g(i) - h(i) * dot));
  }
}

LAMINA_INSTANTIATE(batch_norm_fprop_channels, BatchNormArgs)
LAMINA_INSTANTIATE(batch_norm_dgrad_channels, BatchNormArgs)
LAMINA_INSTANTIATE(group_norm_fprop_rows, GroupNormArgs)
LAMINA_INSTANTIATE(group_norm_dgrad_rows, GroupNormArgs)
LAMINA_INSTANTIATE(rms_norm_fprop_rows, GroupNormArgs)
LAMINA_INSTANTIATE(rms_norm_dgrad_rows, GroupNormArgs)

}  // namespace lamina::ref
