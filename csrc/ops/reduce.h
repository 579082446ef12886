// Reductions of x [outer][n][inner][m] to y [outer][inner], over n and m, and running sums. There
// is a result; of fprop's reductions n or m may be 0.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

enum class Reduction { sum, squares, absolute, euclidean, product, logsumexp, variance, deviation };

// Where a reduction finds what it reduces; inner is 1 only where n is, or x has gaps.
struct Axes {
  int64_t outer = 1, n = 1, inner = 1, m = 1;
  // From one to the next in fprop's x; 0: nothing lies between them. The innermost, m's or where
  // that is 1 inner's, follow each other.
  int64_t outer_distance = 0, n_distance = 0, inner_distance = 0;

  constexpr int64_t lines() const { return outer * inner; }
  constexpr int64_t length() const { return n * m; }
  constexpr int64_t size() const { return lines() * length(); }
  [[gnu::always_inline]] constexpr int64_t outer_step() const {
    return outer_distance ? outer_distance : n * inner * m;
  }
  [[gnu::always_inline]] constexpr int64_t n_step() const {
    return n_distance ? n_distance : inner * m;
  }
  [[gnu::always_inline]] constexpr int64_t inner_step() const {
    return inner_distance ? inner_distance : m;
  }
  // The run of m elements that line `line` has in row `row`.
  [[gnu::always_inline]] constexpr int64_t at(int64_t line, int64_t row) const {
    if (inner == 1) return line * outer_step() + row * n_step();
    return line / inner * outer_step() + row * n_step() + line % inner * inner_step();
  }
};

// With c the mean of a line, of products the product before it is rounded, which fprop leaves in
// `centre` where that is not null:
//            fprop                        dgrad: grad_x, with g = grad_y / divisor
// sum        sum x / divisor              g
// squares    sum x^2 / divisor            2 g x
// absolute   sum |x|                      g sign(x)
// euclidean  sqrt(sum x^2)                g x / y
// product    product of x                 g times the product of the others
// logsumexp  log(sum e^x)                 g e^(x - y)
// variance   sum (x - c)^2 / divisor      2 g (x - c)
// deviation  the root of that             g (x - c) / y
// Where y is 0 the gradients of roots are 0. Sums are added in double and rounded once.
template <class T>
struct ReduceArgs {
  Axes axes;
  Reduction kind = Reduction::sum;
  double divisor = 1;
  const T* x = nullptr;       // null: the gradient of a sum does not read it
  const T* y = nullptr;       // dgrad
  const T* grad_y = nullptr;  // dgrad
  double* centre = nullptr;   // [outer][inner], of product, variance and deviation
  T* result = nullptr;        // y or grad_x
};

// y is the largest element, or the smallest, and NaN if one is; its index, for which n or m must be
// 1, is that of the first such element.
// dgrad with indices: grad_y goes to that element; without: equal elements share it.
template <class T>
struct ExtremeArgs {
  Axes axes;
  bool smallest = false;
  const T* x = nullptr;
  const T* y = nullptr;        // dgrad without indices
  const T* grad_y = nullptr;   // dgrad
  int64_t* indices = nullptr;  // [outer][inner] or null; dgrad reads them
  T* result = nullptr;         // y, which fprop with indices need not have (null), or grad_x
};

// y[k] = sum of x[j] over j <= k, or over j >= k if reversed (the gradient), along n of
// [outer][n][inner], added in double.
template <class T>
struct CumsumArgs {
  int64_t outer = 1, n = 1, inner = 1;
  bool reversed = false;
  const T* x = nullptr;
  T* result = nullptr;
};

}  // namespace lamina::ops
