// Normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, over sets of elements.
#pragma once

#include <cstdint>

#include "ops/epilogue.h"

namespace lamina::ops {

// batch_norm: one set per channel of x [n][c][inner]; var is biased (divided by the set's size m).
//   fprop  training: mean and var are computed and written; else they are read.
//          y = f(h weight + bias + residual), h = (x - mean) rstd, rstd = 1 / sqrt(var + eps)
//   dgrad  of the argument of f, whose gradient is grad_residual = grad_y f'; f' follows from y
//          where both are given, else, without a residual, from x. From here on grad_y is that:
//          grad_bias = sum grad_y, grad_weight = sum grad_y h,
//          grad_x = weight rstd (grad_y - grad_bias / m - h grad_weight / m)   in training,
//                   weight rstd grad_y                                          with fixed
//                   statistics
template <class T>
struct BatchNormArgs {
  int64_t n = 0, c = 0, inner = 0;
  bool training = false;
  Scalar<T> eps = 0;
  const T* x = nullptr;
  const T* weight = nullptr;   // [c] or null: 1
  const T* bias = nullptr;     // [c] or null: 0
  Scalar<T>* mean = nullptr;   // [c]
  Scalar<T>* var = nullptr;    // [c]
  const T* grad_y = nullptr;   // dgrad
  T* result = nullptr;         // y or grad_x, like x
  T* grad_weight = nullptr;    // [c], dgrad
  T* grad_bias = nullptr;      // [c], dgrad
  Epilogue<T> epilogue;        // f and residual
  const T* y = nullptr;        // dgrad, or null
  T* grad_residual = nullptr;  // likewise; may be grad_y
};

// group_norm: one set per row of x [outer][groups][channels][inner], a row being (channels, inner).
// weight and bias have one element per (group, channel). Layer norm is groups = inner = 1, instance
// norm is channels = 1.
//   fprop  mean and rstd [outer][groups] are written for the way back
//   dgrad  with h = (x - mean) rstd and g = grad_y weight, averages over the row:
//          grad_x = rstd (g - avg g - h avg(g h));
//          grad_bias = sum grad_y and grad_weight = sum grad_y h over outer and inner
// rms_norm: a layer norm whose mean is taken to be 0, without mean and bias: h = x rstd,
//          grad_x = rstd (g - h avg(g h)).
template <class T>
struct GroupNormArgs {
  int64_t outer = 0, groups = 0, channels = 0, inner = 0;
  Scalar<T> eps = 0;
  const T* x = nullptr;
  const T* weight = nullptr;  // [groups * channels] or null: 1
  const T* bias = nullptr;    // likewise or null: 0
  Scalar<T>* mean = nullptr;
  Scalar<T>* rstd = nullptr;
  const T* grad_y = nullptr;
  T* result = nullptr;
  T* grad_weight = nullptr;
  T* grad_bias = nullptr;
};

}  // namespace lamina::ops
