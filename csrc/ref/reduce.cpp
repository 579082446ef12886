// Reductions and running sums, reference: the formulas of ops/reduce.h element by element.
#include "ops/reduce.h"

#include <cmath>
#include <limits>
#include <vector>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

using ops::Axes;
using ops::Reduction;

// Calls body(k, place in x) for every element of the line, k counting them.
template <class Body>
void along(const Axes& axes, int64_t line, Body body) {
  int64_t k = 0;
  for (int64_t row = 0; row < axes.n; ++row)
    for (int64_t i = 0; i < axes.m; ++i) body(k++, axes.at(line, row) + i);
}

bool same(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

}  // namespace

template <class T>
void reduce_fprop_runs(const ops::ReduceArgs<T>& args) {
  const Axes& axes = args.axes;
  const Reduction kind = args.kind;
  for (int64_t line = 0; line < axes.lines(); ++line) {
    const auto total = [&](auto of) {
      double sum = 0;
      along(axes, line, [&](int64_t, int64_t at) { sum += of(static_cast<double>(args.x[at])); });
      return sum;
    };
    double y = kind == Reduction::product ? 1 : 0;
    if (kind == Reduction::sum) y = total([](double v) { return v; }) / args.divisor;
    if (kind == Reduction::squares) y = total([](double v) { return v * v; }) / args.divisor;
    if (kind == Reduction::absolute) y = total([](double v) { return std::fabs(v); });
    if (kind == Reduction::euclidean) y = std::sqrt(total([](double v) { return v * v; }));
    if (kind == Reduction::product)
      along(axes, line, [&](int64_t, int64_t at) { y *= static_cast<double>(args.x[at]); });
    if (kind == Reduction::product && args.centre) args.centre[line] = y;
    if (kind == Reduction::logsumexp) {
      double top = -std::numeric_limits<double>::infinity();
      along(axes, line, [&](int64_t, int64_t at) { top = std::fmax(top, args.x[at]); });
      if (!std::isfinite(top)) top = 0;
      y = top + std::log(total([=](double v) { return std::exp(v - top); }));
    }
    if (kind == Reduction::variance || kind == Reduction::deviation) {
      const double mean = total([](double v) { return v; }) / static_cast<double>(axes.length());
      y = total([=](double v) { return (v - mean) * (v - mean); }) / args.divisor;
      if (kind == Reduction::deviation) y = std::sqrt(y);
      if (args.centre) args.centre[line] = mean;
    }
    args.result[line] = static_cast<T>(y);
  }
}

template <class T>
void reduce_dgrad_runs(const ops::ReduceArgs<T>& args) {
  const Reduction kind = args.kind;
  const bool root = kind == Reduction::euclidean || kind == Reduction::deviation;
  for (int64_t line = 0; line < args.axes.lines(); ++line) {
    const double g = args.grad_y[line] / args.divisor;
    std::vector<double> others;  // the product of those before, then of all others
    if (kind == Reduction::product) {
      double product = 1;
      along(args.axes, line, [&](int64_t, int64_t at) {
        others.push_back(product);
        product *= static_cast<double>(args.x[at]);
      });
      double behind = 1;
      for (int64_t k = args.axes.length(); k-- > 0;) {
        others[static_cast<size_t>(k)] *= behind;
        behind *=
            static_cast<double>(args.x[args.axes.at(line, k / args.axes.m) + k % args.axes.m]);
      }
    }
    along(args.axes, line, [&](int64_t k, int64_t at) {
      const double x = args.x ? static_cast<double>(args.x[at]) : 0;
      const double centre = args.centre ? args.centre[line] : 0;
      double grad = g;
      if (kind == Reduction::absolute) grad = std::isnan(x) ? x : g * ((x > 0) - (x < 0));
      if (kind == Reduction::squares) grad = 2 * g * x;
      if (kind == Reduction::product) grad = g * others[static_cast<size_t>(k)];
      if (kind == Reduction::logsumexp) grad = g * std::exp(x - args.y[line]);
      if (kind == Reduction::variance) grad = 2 * g * (x - centre);
      if (root) grad = args.y[line] == 0 ? 0 : g * (x - centre) / args.y[line];
      args.result[at] = static_cast<T>(grad);
    });
  }
}

template <class T>
void extreme_fprop_runs(const ops::ExtremeArgs<T>& args) {
  for (int64_t line = 0; line < args.axes.lines(); ++line) {
    double y = 0;
    int64_t index = 0;
    along(args.axes, line, [&](int64_t k, int64_t at) {
      const double x = static_cast<double>(args.x[at]);
      const bool beyond = args.smallest ? x < y : x > y;
      if (k == 0 || (!std::isnan(y) && (beyond || std::isnan(x)))) y = x, index = k;
    });
    if (args.result) args.result[line] = static_cast<T>(y);
    if (args.indices) args.indices[line] = index;
  }
}

template <class T>
void extreme_dgrad_runs(const ops::ExtremeArgs<T>& args) {
  for (int64_t line = 0; line < args.axes.lines(); ++line) {
    double equal = 1;
    if (!args.indices) {
      equal = 0;
      along(args.axes, line, [&](int64_t, int64_t at) { equal += same(args.x[at], args.y[line]); });
    }
    along(args.axes, line, [&](int64_t k, int64_t at) {
      const bool chosen = args.indices ? k == args.indices[line] : same(args.x[at], args.y[line]);
      args.result[at] = chosen ? static_cast<T>(args.grad_y[line] / equal) : T(0);
    });
  }
}

template <class T>
void cumsum_fprop_lines(const ops::CumsumArgs<T>& args) {
  for (int64_t o = 0; o < args.outer; ++o)
    for (int64_t i = 0; i < args.inner; ++i) {
      double sum = 0;
      for (int64_t step = 0; step < args.n; ++step) {
        const int64_t k = args.reversed ? args.n - 1 - step : step;
        const int64_t at = (o * args.n + k) * args.inner + i;
        args.result[at] = static_cast<T>(sum += static_cast<double>(args.x[at]));
      }
    }
}

LAMINA_INSTANTIATE(reduce_fprop_runs, ReduceArgs)
LAMINA_INSTANTIATE(reduce_dgrad_runs, ReduceArgs)
LAMINA_INSTANTIATE(extreme_fprop_runs, ExtremeArgs)
LAMINA_INSTANTIATE(extreme_dgrad_runs, ExtremeArgs)
LAMINA_INSTANTIATE(cumsum_fprop_lines, CumsumArgs)

}  // namespace lamina::ref
