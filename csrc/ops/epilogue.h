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
  // That of a part of the result, `offset` elements behind its beginning.
  constexpr Epilogue at(int64_t offset) const {
    return {kind, a, b, residual ? residual + offset : nullptr};
  }
};

// The kinds that kernels for GPUs apply to a sum in a register. The others are rare or long.
constexpr bool takes_a_gate(Activation kind) {
  return kind == Activation::silu || kind == Activation::sigmoid || kind == Activation::tanh ||
         kind == Activation::hardsigmoid || kind == Activation::hardswish;
}
constexpr bool is_piecewise_linear(Activation kind) {
  return kind == Activation::identity || kind == Activation::relu ||
         kind == Activation::leaky_relu || kind == Activation::hardtanh;
}

}  // namespace lamina::ops
