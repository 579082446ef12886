// gemm: c = alpha * op(a) op(b) + beta * c, row major, batched.
//
//   c [batch][m][n] (leading dimension ldc), op(a) [m][k], op(b) [k][n].
//   trans_a: a is stored [k][m] with leading dimension lda; trans_b: b is stored [n][k].
//   stride_x: elements between the matrices of a batch; 0 repeats one matrix.
// bias_m / bias_n: null, or added to every column / row of the result. The epilogue (its residual
// lies as c does) comes last.
#pragma once

#include <cstdint>

#include "ops/epilogue.h"
#include "ops/packed_filters.h"
#include "ops/precision.h"

namespace lamina::ops {

template <class T>
struct GemmArgs {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  bool trans_a = false, trans_b = false;
  Scalar<T> alpha = 1, beta = 0;  // beta == 0 never reads c
  const T* a = nullptr;
  int64_t lda = 0, stride_a = 0;
  const T* b = nullptr;
  int64_t ldb = 0, stride_b = 0;
  T* c = nullptr;
  int64_t ldc = 0, stride_c = 0;
  const T* bias_m = nullptr;
  const T* bias_n = nullptr;
  Epilogue<T> epilogue;
  PackedFilters<T>* packed = nullptr;  // op(b), or null; packed_elements
  Float32Precision precision = Float32Precision::highest;
};

// Products of a with so few rows and b^T are sums over b as it lies.
inline constexpr int64_t kFewDots = 4;

// Elements of op(b), packed by the CPU: whole vectors of its columns.
constexpr int64_t packed_elements(int64_t batch, int64_t n, int64_t k) {
  return batch * k * (n + 15);
}

}  // namespace lamina::ops
