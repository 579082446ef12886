// log(sum e^x) of lines and columns, from the largest element and the sum of the powers of e of
// the distances from it, which is kept in double where it may be long.
#pragma once

#include "cpu/reduce.h"
#include "cpu/softmax_lines.h"

LAMINA_CPU_NAMESPACE_BEGIN

// e^(top - most), 1 of equal infinities.
LAMINA_INLINE double power_below(double top, double most) {
  return top == most ? 1 : exp_nonpositive<double>(broadcast(top - most))[0];
}

template <class T>
struct PowerSum {
  T top = -T(__builtin_inf());
  double sum = 0;

  LAMINA_INLINE void add(const T* x, int64_t, int64_t count) {
    PowerSum next;
    next.sum = double(line_statistics(x, count, next.top));
    if (next.top == T(__builtin_inf())) {  // Inf - Inf was in the sum, or a NaN
      Vec<T> nothing = {};
      along_line<T>(count, [&](int64_t i, int64_t some) {
        const Vec<T> v = load_first(x + i, some);
        nothing = v != v ? v : nothing;
      });
      next.sum = 1 + double(sum_lanes<T>(nothing));
    }
    join(next);
  }
  LAMINA_INLINE void join(const PowerSum& next) {
    const T most = next.top > top ? next.top : top;
    sum = sum * power_below(top, most) + next.sum * power_below(next.top, most);
    top = most;
  }
  LAMINA_INLINE T logarithm() const { return T(double(top) + log<double>(broadcast(sum))[0]); }
};

// Of `count` lines that L1 holds, side by side from their largest elements on.
template <class T>
LAMINA_INLINE void short_logsumexp(const T* const (&x)[kLanes<T>], int64_t size, int64_t count,
                                   T* y) {
  constexpr T kInfinity = T(__builtin_inf());
  alignas(64) T tops[kLanes<T>];
  Vec<T> lanes[kLanes<T>];
  for (int k = 0; k < kLanes<T>; ++k) {
    Vec<T> most = broadcast(-kInfinity);
    along_line<T>(size, [&](int64_t i, int64_t some) {
      const Vec<T> v = load_some(x[k] + i, some, -kInfinity);
      most = v > most ? v : most;
    });
    lanes[k] = most;
  }
  const Vec<T> top = fold_each<T>(lanes, [](Vec<T> a, Vec<T> b) { return a > b ? a : b; });
  const Mask<T> finite = absolute<T>(top) < kInfinity;
  store(tops, finite ? top : Vec<T>{});
  for (int k = 0; k < kLanes<T>; ++k) {
    const Vec<T> shift = broadcast(tops[k]);
    Vec<T> sum = {};
    along_line<T>(size, [&](int64_t i, int64_t some) {
      sum += exp_term<T>(load_some(x[k] + i, some, -kInfinity) - shift);
    });
    lanes[k] = sum;
  }
  alignas(64) T sums[kLanes<T>];
  store(sums, fold_each<T>(lanes, [](Vec<T> a, Vec<T> b) { return a + b; }));
  for (int64_t k = 0; k < count; k += kWide)
    store_wide(y + k, count - k, load_wide(tops + k) + log<double>(load_wide(sums + k)));
  if (!any_lane<T>(~finite)) return;
  for (int64_t k = 0; k < count; ++k)
    if (!finite[k]) {
      PowerSum<T> line;
      line.add(x[k], 0, size);
      y[k] = line.logarithm();
    }
}

template <class T>
struct PowerSumColumns {
  static constexpr int64_t kWidth = 256, kRows = 16;
  alignas(64) T top[kWidth];
  alignas(64) double sum[kWidth];

  void start(int64_t) {
    for (int64_t j = 0; j < kWidth; ++j) top[j] = -T(__builtin_inf()), sum[j] = 0;
  }
  void add(const T* x, int64_t rows, int64_t, int64_t distance, int64_t count) {
    for (int64_t row = 0; row < rows; row += kRows)
      for (int64_t j = 0; j < count; j += kLanes<T>)
        add_rows(x + row * distance + j, min_of(kRows, rows - row), distance, j, count - j);
  }
  LAMINA_INLINE void add_rows(const T* x, int64_t rows, int64_t distance, int64_t j,
                              int64_t count) {
    const auto at = [&](int64_t row) { return load_first(x + row * distance, count); };
    Vec<T> most = at(0), powers = {};
    for (int64_t row = 1; row < rows; ++row) most = at(row) > most ? at(row) : most;
    const Vec<T> before = load(top + j);
    most = before > most ? before : most;
    const auto power = [&](Vec<T> v) {  // equal infinities too are at no distance
      return exp_nonpositive<T>(v == most ? Vec<T>{} : v - most);
    };
    for (int64_t row = 0; row < rows; ++row) powers += power(at(row));
    join(j, most, power(before), powers);
  }
  void join(const PowerSumColumns& next, int64_t count) {
    for (int64_t j = 0; j < count; ++j) {
      PowerSum<T> one{top[j], sum[j]};
      one.join({next.top[j], next.sum[j]});
      top[j] = one.top, sum[j] = one.sum;
    }
  }
  LAMINA_INLINE void join(int64_t j, Vec<T> most, Vec<T> share, Vec<T> powers) {
    T shares[kLanes<T>], added[kLanes<T>];
    store(shares, share), store(added, powers), store(top + j, most);
    for (int i = 0; i < kLanes<T>; i += kWide)
      store(sum + j + i, load(sum + j + i) * load_wide(shares + i) + load_wide(added + i));
  }
};

LAMINA_CPU_NAMESPACE_END
