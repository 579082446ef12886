// pdist: distances between all pairs of rows i < j of x [n][d], those of row 0 first.
//
// fprop  y[i, j] = sum |x[i] - x[j]|, or euclidean: sqrt(sum (x[i] - x[j])^2)
// dgrad  grad_x[i] = sum over j of grad_y[i, j] sign(x[i] - x[j]), or (x[i] - x[j]) / y[i, j], 0
//        where y is
// Sums are added in double.
#pragma once

#include <cstdint>

namespace lamina::ops {

template <class T>
struct PdistArgs {
  int64_t n = 0, d = 0;
  bool euclidean = true;
  const T* x = nullptr;
  const T* y = nullptr;       // dgrad, euclidean
  const T* grad_y = nullptr;  // dgrad
  T* result = nullptr;        // y or grad_x
};

// Where the distance of rows i < j is.
constexpr int64_t pair_place(int64_t n, int64_t i, int64_t j) {
  return i * (2 * n - i - 1) / 2 + j - i - 1;
}

}  // namespace lamina::ops
