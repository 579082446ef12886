// activation: y = f(x + residual) element by element, and grad_x = grad_y * f'(x).
//
// a and b are the two parameters of a kind; at a kink f' is the one-sided value named here, which
// is also PyTorch's. NaN in gives NaN out. From where f is constant nothing comes back, not even an
// Inf or NaN of grad_y.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

// X(kind): formula; f' at the kink.
//   identity      x
//   relu          max(x, 0); f'(0) = 0
//   leaky_relu    x > 0 ? x : a x; f'(0) = a
//   elu           x > 0 ? x : a (exp(x) - 1); f'(0) = a            (Clevert et al. 2016)
//   selu          b elu(x; a) with a, b of Klambauer et al. 2017
//   celu          x > 0 ? x : a (exp(x / a) - 1)                   (Barron 2017)
//   gelu          x (1 + erf(x / sqrt 2)) / 2                      (Hendrycks & Gimpel 2016)
//   gelu_tanh     x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
//   silu          x / (1 + exp(-x))
//   mish          x tanh(softplus(x))                              (Misra 2019)
//   softplus      x a > b ? x : log(1 + exp(a x)) / a
//   softsign      x / (1 + |x|)
//   softshrink    sign(x) max(|x| - a, 0); f' = 0 on [-a, a]
//   hardshrink    |x| > a ? x : 0; f' = 0 on [-a, a]
//   tanhshrink    x - tanh(x)
//   hardtanh      min(max(x, a), b); f'(a) = f'(b) = 0
//   hardsigmoid   min(max(x + 3, 0), 6) / 6; f'(-3) = f'(3) = 0
//   hardswish     x hardsigmoid(x); f'(-3) = 0, f'(3) = 1          (Howard et al. 2019)
//   threshold     x > a ? x : b; f'(a) = 0
//   logsigmoid    -softplus(-x)
//   sigmoid       1 / (1 + exp(-a x))
//   tanh          tanh(x)
//   step          x > 0 ? 1 : 0; f' = 0 everywhere
// clang-format off
#define LAMINA_ACTIVATIONS(X)                                                \
  X(identity) X(relu) X(leaky_relu) X(elu) X(selu) X(celu) X(gelu)           \
  X(gelu_tanh) X(silu) X(mish) X(softplus) X(softsign) X(softshrink) X(hardshrink) X(tanhshrink)  \
  X(hardtanh) X(hardsigmoid) X(hardswish) X(threshold) X(logsigmoid)         \
  X(sigmoid) X(tanh) X(step)
// clang-format on

enum class Activation {
#define LAMINA_ENUMERATE(kind) kind,
  LAMINA_ACTIVATIONS(LAMINA_ENUMERATE)
#undef LAMINA_ENUMERATE
};

// Whether f is constant between kinks.
constexpr bool has_constant_part(Activation kind) {
  switch (kind) {
    case Activation::relu:
    case Activation::softshrink:
    case Activation::hardshrink:
    case Activation::hardtanh:
    case Activation::hardsigmoid:
    case Activation::hardswish:
    case Activation::threshold:
    case Activation::step:
      return true;
    default:
      return false;
  }
}

inline constexpr const char* kActivationNames[] = {
#define LAMINA_NAME(kind) #kind,
    LAMINA_ACTIVATIONS(LAMINA_NAME)
#undef LAMINA_NAME
};

template <class T>
struct ActivationArgs {
  Activation kind = Activation::relu;
  Scalar<T> a = 0, b = 0;
  int64_t size = 0;
  const T* x = nullptr;
  const T* residual = nullptr;  // fprop only; null for none
  const T* grad_y = nullptr;    // dgrad only
  T* result = nullptr;          // y, which may be x, or grad_x
};

// prelu: y = x > 0 ? x : weight[c] x with c the second axis; weight of one element serves all.
//   dgrad  grad_x = x > 0 ? grad_y : weight[c] grad_y
//   wgrad  grad_weight[c] = sum over n and positions of (x > 0 ? 0 : x grad_y)
template <class T>
struct PreluArgs {
  int64_t n = 0, c = 0, inner = 0;
  int64_t weights = 0;  // c or 1
  const T* x = nullptr;
  const T* weight = nullptr;
  const T* grad_y = nullptr;
  T* result = nullptr;
};

// glu: y = a sigmoid(b), where x [outer][2][inner] holds a and b one behind the other.
//   dgrad  of both, where they are in x
template <class T>
struct GluArgs {
  int64_t outer = 0, inner = 0;
  const T* x = nullptr;
  const T* grad_y = nullptr;  // dgrad
  T* result = nullptr;        // y, or grad_x
};

}  // namespace lamina::ops
