// softmax and cross-entropy, reference: the formulas of ops/softmax.h line by line.
#include "ops/softmax.h"

#include <cmath>
#include <vector>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

// log softmax of a line of `count` elements `stride` apart.
template <class T>
std::vector<double> log_softmax(const T* x, int64_t count, int64_t stride) {
  double top = -INFINITY;
  for (int64_t j = 0; j < count; ++j) top = std::fmax(top, x[j * stride]);
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) sum += std::exp(x[j * stride] - top);
  std::vector<double> line(static_cast<size_t>(count));
  for (int64_t j = 0; j < count; ++j)
    line[static_cast<size_t>(j)] = x[j * stride] - top - std::log(sum);
  return line;
}

// Calls body(offset of the line's first element) for each line.
template <class Body>
void for_each_line(int64_t outer, int64_t axis, int64_t inner, Body body) {
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < inner; ++i) body(o * axis * inner + i);
}

}  // namespace

template <class T>
void softmax_fprop_lines(const ops::SoftmaxArgs<T>& args) {
  for_each_line(args.outer, args.axis, args.inner, [&](int64_t at) {
    const std::vector<double> line = log_softmax(args.x + at, args.axis, args.inner);
    for (int64_t j = 0; j < args.axis; ++j) {
      const double value = line[static_cast<size_t>(j)];
      args.result[at + j * args.inner] = static_cast<T>(args.log ? value : std::exp(value));
    }
  });
}

template <class T>
void softmax_dgrad_lines(const ops::SoftmaxArgs<T>& args) {
  for_each_line(args.outer, args.axis, args.inner, [&](int64_t at) {
    double sum = 0;
    for (int64_t j = at; j < at + args.axis * args.inner; j += args.inner)
      sum += (args.log ? 1.0 : static_cast<double>(args.y[j])) * args.grad_y[j];
    for (int64_t j = at; j < at + args.axis * args.inner; j += args.inner) {
      const double y = args.y[j], g = args.grad_y[j];
      args.result[j] = static_cast<T>(args.log ? g - std::exp(y) * sum : y * (g - sum));
    }
  });
}

template <class T>
void cross_entropy_fprop_fused(const ops::CrossEntropyArgs<T>& args) {
  if ((*args.bad = first_bad_target(args)) >= 0) return;
  const double s = args.label_smoothing;
  auto weight = [&](int64_t j) { return args.weight ? static_cast<double>(args.weight[j]) : 1.0; };
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t i = 0; i < args.inner; ++i) {
      const int64_t t = args.target[n * args.inner + i];
      T& loss = args.result[n * args.inner + i];
      loss = 0;
      if (t == args.ignore_index) continue;
      const std::vector<double> line =
          log_softmax(args.x + n * args.c * args.inner + i, args.c, args.inner);
      double smooth = 0;
      for (int64_t j = 0; j < args.c; ++j) smooth -= weight(j) * line[static_cast<size_t>(j)];
      const double hard = -weight(t) * line[static_cast<size_t>(t)];
      loss = static_cast<T>(s == 0 ? hard : (1 - s) * hard + s / args.c * smooth);
    }
}

template <class T>
void cross_entropy_dgrad_fused(const ops::CrossEntropyArgs<T>& args) {
  if ((*args.bad = first_bad_target(args)) >= 0) return;
  const double s = args.label_smoothing;
  auto weight = [&](int64_t j) { return args.weight ? static_cast<double>(args.weight[j]) : 1.0; };
  double total = 0;
  for (int64_t j = 0; j < args.c; ++j) total += weight(j);
  for (int64_t n = 0; n < args.n; ++n)
    for (int64_t i = 0; i < args.inner; ++i) {
      const int64_t t = args.target[n * args.inner + i];
      const double g = args.grad_loss[n * args.inner + i];
      const std::vector<double> line =
          log_softmax(args.x + n * args.c * args.inner + i, args.c, args.inner);
      for (int64_t j = 0; j < args.c; ++j) {
        const double p = std::exp(line[static_cast<size_t>(j)]);
        const double grad = t == args.ignore_index ? 0
                                                   : (1 - s) * weight(t) * (p - (j == t)) +
                                                         s / args.c * (total * p - weight(j));
        args.result[(n * args.c + j) * args.inner + i] =
            static_cast<T>(t == args.ignore_index ? 0 : g * grad);
      }
    }
}

LAMINA_INSTANTIATE(softmax_fprop_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(softmax_dgrad_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(cross_entropy_fprop_fused, CrossEntropyArgs)
LAMINA_INSTANTIATE(cross_entropy_dgrad_fused, CrossEntropyArgs)

}  // namespace lamina::ref
