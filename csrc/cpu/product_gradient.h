// The gradient of products: g times the product of the other elements of the line, which is that of
// the line over the element where doubles hold it, and else made of the products before and behind.
#pragma once

#include "cpu/reduce.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Whether quotients by elements that are not 0 are the products of the others.
LAMINA_INLINE bool is_divisible(double product) {
  const double size = product < 0 ? -product : product;
  return size > 1e-250 && size < 1e250;
}

// result[i] = g times the product of all x but x[i].
template <class T>
static void products_of_others(const T* x, int64_t size, double g, T* result) {
  Vec<T> differences = {};  // 0, or NaN beside numbers that are not finite
  along_line<T>(size, [&](int64_t i, int64_t count) {
    const Vec<T> v = load_first(x + i, count);
    differences += v - v;
  });
  const bool finite = sum_lanes<T>(differences) == T(0);
  const Scratch<double> before(size);
  double product = 1;
  int64_t end = 0;  // from where on the products before are 0
  for (; end < size && !(product == 0 && finite); ++end) {
    before[end] = product;
    product *= double(x[end]);
  }
  Wide lanes = broadcast(1.0);
  along_line<double>(size - end, [&](int64_t i, int64_t count) {
    lanes *= first_lanes(load_wide(x + end + i, count), count, 1);
    store_wide(result + end + i, count, broadcast(g * 0));
  });
  double behind = 1;
  for (int i = 0; i < kWide; ++i) behind *= lanes[i];
  for (int64_t i = end; i-- > 0;) {
    result[i] = T(g * (before[i] * behind));
    behind *= double(x[i]);
  }
}

template <class T>
static void product_gradient(const ops::ReduceArgs<T>& args) {
  const ops::Axes& axes = args.axes;
  const double* const products = args.centre;
  if (in_columns(args)) {
    const int64_t n = axes.n, inner = axes.inner;
    parallel_ranges(axes.outer * n, max_of<int64_t>(kPiece / inner, 1),
                    [&](int64_t row, int64_t end) {
                      for (; row < end; ++row) {
                        const int64_t line = row / n * inner;
                        along_line<double>(inner, [&](int64_t j, int64_t count) {
                          const Wide others = load_first(products + line + j, count) /
                                              load_wide(args.x + row * inner + j, count);
                          store_wide(args.result + row * inner + j, count,
                                     load_wide(args.grad_y + line + j, count) * others);
                        });
                      }
                    });
  } else {
    for_each_stretch(axes.size(), axes.m, [&](int64_t run, int64_t from, int64_t to) {
      const int64_t line =
          axes.n == 1 ? run : run / (axes.n * axes.inner) * axes.inner + run % axes.inner;
      if (!is_divisible(products[line])) return;
      const int64_t at = run * axes.m + from;
      const double product = products[line], g = double(args.grad_y[line]);
      along_line<double>(to - from, [&](int64_t i, int64_t count) {
        store_wide(args.result + at + i, count, g * (product / load_wide(args.x + at + i, count)));
      });
    });
  }
  const int64_t length = axes.length();
  parallel_ranges(
      axes.lines(), max_of<int64_t>(kPiece / length, 1), [&](int64_t line, int64_t end) {
        for (; line < end; ++line) {
          if (is_divisible(products[line])) continue;
          const double g = double(args.grad_y[line]);
          if (axes.n == 1) {
            products_of_others(args.x + line * length, length, g, args.result + line * length);
            continue;
          }
          const Scratch<T> x(length), result(length);
          const auto along = [&](const auto& body) {
            for (int64_t row = 0; row < axes.n; ++row)
              for (int64_t i = 0; i < axes.m; ++i) body(row * axes.m + i, axes.at(line, row) + i);
          };
          along([&](int64_t i, int64_t at) { x[i] = args.x[at]; });
          products_of_others<T>(x.get(), length, g, result.get());
          along([&](int64_t i, int64_t at) { args.result[at] = result[i]; });
        }
      });
}

LAMINA_CPU_NAMESPACE_END
