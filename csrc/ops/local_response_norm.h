// local_response_norm: y = x d^-beta, d = k + alpha * sum over the window of x^2.
//
//   dgrad  grad_x = grad_y d^-beta - 2 alpha beta x sum over the windows that hold it of
//          grad_y x d^(-beta - 1)
// The window of position i along an axis is i - size / 2 to i + (size - 1) / 2, cut at the ends.
// Across channels a slab is [C][1][inner] with the window {size, 1, 1}; within a map it is
// [D][H][W]. alpha already holds the division by the window's size (Krizhevsky et al. 2012; torch's
// mean).
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

template <class T>
struct LocalResponseNormArgs {
  int64_t slabs = 0;
  int64_t size[3] = {1, 1, 1};
  int64_t window[3] = {1, 1, 1};
  Scalar<T> alpha = 0, beta = 0, k = 0;
  const T* x = nullptr;       // [slabs][size]
  const T* grad_y = nullptr;  // dgrad
  T* result = nullptr;

  constexpr int64_t slab() const { return size[0] * size[1] * size[2]; }
};

}  // namespace lamina::ops
