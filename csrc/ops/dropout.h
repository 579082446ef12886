// dropout: y[row][i] = keep(row) ? x * scale + shift : x * 0 + dropped.
//
// Row r keeps if the upper 24 bits of word r of the Philox stream (seed, offset) are at least
// `threshold` = ceil(p * 2^24) (csrc/shared/philox.h); nothing is stored, the gradient draws the
// same mask again. Plain dropout has rows of one element, feature dropout rows of one channel
// (Srivastava et al. 2014, Tompson et al. 2015); alpha dropout sets shift and dropped (Klambauer et
// al. 2017). NaN and Inf times 0 stay NaN.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

template <class T>
struct DropoutArgs {
  int64_t rows = 0, inner = 0;
  uint64_t seed = 0, offset = 0;
  int64_t threshold = 0;
  Scalar<T> scale = 1, shift = 0, dropped = 0;
  const T* x = nullptr;  // [rows][inner]
  T* result = nullptr;
};

}  // namespace lamina::ops
