// Distances between rows: pdist, of all pairs i < j of x [n][d], those of row 0 first;
// row_distance, of row i of a [rows][d] from row i of b. Sums are added in double.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

// fprop  y[i, j] = sum |x[i] - x[j]|, or euclidean: sqrt(sum (x[i] - x[j])^2)
// dgrad  grad_x[i] = sum over j of grad_y[i, j] sign(x[i] - x[j]), or (x[i] - x[j]) / y[i, j], 0
//        where y is
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

// With e = a - b + eps, and A = sum a^2, B = sum b^2:
//            fprop, of a row                  dgrad: grad_a, with g = grad_y of the row
// absolute   sum |e|                          g sign(e)
// euclidean  sqrt(sum e^2)                    g e / y, 0 where y is
// power      (sum |e|^p)^(1/p)                g sign(e) (|e| / y)^(p - 1), 0 where y or e is
// largest    max |e|, NaN if one is           g sign(e) / count of the largest, at these
// cosine     sum a b / (m(A) m(B))            g (b / (m(A) m(B)) - a y / A, 0 where m(A) is eps)
// shifted    sum a b / sqrt((A + eps) (B + eps))
//                                             g (b / sqrt((A + eps) (B + eps)) - a y / (A + eps))
// with m(A) = max(sqrt(A), eps). grad_b = -grad_a, but of cosines a and b change places.
enum class RowDistance { absolute, euclidean, power, largest, cosine, shifted };

constexpr bool is_cosine(RowDistance kind) {
  return kind == RowDistance::cosine || kind == RowDistance::shifted;
}

template <class T>
struct RowDistanceArgs {
  RowDistance kind = RowDistance::euclidean;
  double p = 2, eps = 0;
  int64_t rows = 0, d = 0;
  const T* a = nullptr;
  const T* b = nullptr;
  T* y = nullptr;             // [rows]; dgrad reads it, but of absolute
  double* squares = nullptr;  // [2][rows], of cosines: A and B, which dgrad reads
  const T* grad_y = nullptr;  // dgrad
  T* grad_a = nullptr;        // dgrad, or null
  T* grad_b = nullptr;        // likewise
};

}  // namespace lamina::ops
