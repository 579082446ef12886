// epilogue: what becomes of the sums of a convolution or a matrix product before they are stored.
//
//   result = f(sum + bias + residual)
//
// f is one of the activations of ops/activation.h with its parameters a and b.
#pragma once

#include "ops/activation.h"

namespace lamina::ops {

template <class T>
struct Epilogue {
  Activation kind = Activation::identity;
  Scalar<T> a = 0, b = 0;
  const T* residual = nullptr;  // of the shape and layout of the result, or null

  constexpr bool empty() const { return kind == Activation::identity && residual == nullptr; }
};

}  // namespace lamina::ops
