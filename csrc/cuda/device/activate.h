// The activations of ops/activation.h, f and f', on a scalar of float or double.
#pragma once

#include "cuda/device/numeric.h"
#include "ops/activation.h"

namespace lamina::cuda {

template <class A>
__device__ __forceinline__ A sigmoid(A x) {
  const A e = exp(-fabs(x));  // at most 1
  return (x >= A(0) ? A(1) : e) / (A(1) + e);
}
template <class A>
__device__ __forceinline__ A softplus(A x) {
  return (x > A(0) ? x : A(0)) + log1p(exp(-fabs(x)));
}
// x * gate with 0 * -Inf = 0: these functions tend to 0 on the left.
template <class A>
__device__ __forceinline__ A gated(A x, A gate) {
  return x == -infinity<A>() ? A(0) : x * gate;
}
// gate + x * bump, whose second term tends to 0 on both sides.
template <class A>
__device__ __forceinline__ A gated_slope(A x, A gate, A bump) {
  return fabs(x) == infinity<A>() ? gate : gate + x * bump;
}
template <class A>
__device__ __forceinline__ A normal_cdf(A x) {
  return A(0.5) * erfc(x * A(-0.70710678118654752440));
}
template <class A>
__device__ __forceinline__ A normal_density(A x) {
  return A(0.39894228040143267794) * exp(A(-0.5) * x * x);
}
template <class A>
__device__ __forceinline__ A gelu_tanh(A x) {
  return tanh(A(0.79788456080286535588) * (x + A(0.044715) * x * x * x));
}
template <class A>
__device__ __forceinline__ A gelu_tanh_slope(A x) {
  // t is 1 long before x is 16, and larger squares overflow in the end.
  const A t = gelu_tanh(x), square = x * x < A(256) ? x * x : A(256);
  const A inner = A(0.79788456080286535588) * (A(1) + A(3 * 0.044715) * square);
  return gated_slope(x, A(0.5) * (A(1) + t), A(0.5) * (A(1) - t * t) * inner);
}
template <class A>
__device__ __forceinline__ A mish_slope(A x) {
  const A t = tanh(softplus(x));
  return gated_slope(x, t, (A(1) - t * t) * sigmoid(x));
}
template <class A>
__device__ __forceinline__ A clamp(A x, A low, A high) {
  return x < low ? low : x > high ? high : x;
}

#define LAMINA_FUNCTOR(kind, value, slope)                                            \
  struct Kind_##kind {                                                                \
    template <class A>                                                                \
    __device__ __forceinline__ static A f(A x, A a, A b) {                            \
      (void)a, (void)b;                                                               \
      return value;                                                                   \
    }                                                                                 \
    template <class A>                                                                \
    __device__ __forceinline__ static A d(A x, A a, A b) {                            \
      (void)a, (void)b, (void)x;                                                      \
      return slope;                                                                   \
    }                                                                                 \
    template <class A>                                                                \
    __device__ __forceinline__ static A gradient(A grad_y, A x, A a, A b) {           \
      const A by_x = d(x, a, b);                                                      \
      if (ops::has_constant_part(ops::Activation::kind) && by_x == A(0)) return A(0); \
      return grad_y * by_x;                                                           \
    }                                                                                 \
  };
LAMINA_FUNCTOR(identity, x, A(1))
LAMINA_FUNCTOR(relu, x <= A(0) ? A(0) : x, x <= A(0) ? A(0) : A(1))
LAMINA_FUNCTOR(leaky_relu, x > A(0) ? x : a * x, x > A(0) ? A(1) : a)
LAMINA_FUNCTOR(elu, x > A(0) ? x : a * expm1(x), x > A(0) ? A(1) : a * exp(x))
LAMINA_FUNCTOR(selu, b*(x > A(0) ? x : a * expm1(x)), b*(x > A(0) ? A(1) : a * exp(x)))
LAMINA_FUNCTOR(celu, x > A(0) ? x : a * expm1(x / a), x > A(0) ? A(1) : exp(x / a))
LAMINA_FUNCTOR(gelu, gated(x, normal_cdf(x)), gated_slope(x, normal_cdf(x), normal_density(x)))
LAMINA_FUNCTOR(gelu_tanh, gated(x, A(0.5) * (A(1) + gelu_tanh(x))), gelu_tanh_slope(x))
LAMINA_FUNCTOR(silu, gated(x, sigmoid(x)), gated_slope(x, sigmoid(x), sigmoid(x) * sigmoid(-x)))
LAMINA_FUNCTOR(mish, gated(x, tanh(softplus(x))), mish_slope(x))
LAMINA_FUNCTOR(softplus, x* a > b ? x : softplus(a * x) / a, x* a > b ? A(1) : sigmoid(a * x))
LAMINA_FUNCTOR(softsign, fabs(x) == infinity<A>() ? copysign(A(1), x) : x / (A(1) + fabs(x)),
               A(1) / ((A(1) + fabs(x)) * (A(1) + fabs(x))))
LAMINA_FUNCTOR(softshrink,
               x > a    ? x - a
               : x < -a ? x + a
               : x != x ? x
                        : A(0),
               x<-a || x> a ? A(1) : A(0))
LAMINA_FUNCTOR(hardshrink, x >= -a && x <= a ? A(0) : x, x<-a || x> a ? A(1) : A(0))
LAMINA_FUNCTOR(tanhshrink, x - tanh(x), tanh(x) * tanh(x))
LAMINA_FUNCTOR(hardtanh, clamp(x, a, b), x > a && x < b ? A(1) : A(0))
LAMINA_FUNCTOR(hardsigmoid, clamp(x + A(3), A(0), A(6)) / A(6),
               x > A(-3) && x < A(3) ? A(1) / A(6) : A(0))
LAMINA_FUNCTOR(hardswish,
               x <= A(-3)  ? A(0)
               : x >= A(3) ? x
                           : x * (x + A(3)) / A(6),
               x <= A(-3)  ? A(0)
               : x >= A(3) ? A(1)
                           : x / A(3) + A(0.5))
LAMINA_FUNCTOR(threshold, x <= a ? b : x, x <= a ? A(0) : A(1))
LAMINA_FUNCTOR(logsigmoid, -softplus(-x), sigmoid(-x))
LAMINA_FUNCTOR(sigmoid, sigmoid(a* x), a* sigmoid(a* x) * sigmoid(-a * x))
LAMINA_FUNCTOR(tanh, tanh(x), A(1) - tanh(x) * tanh(x))
LAMINA_FUNCTOR(step, x != x ? x : x > A(0) ? A(1) : A(0), A(0))
#undef LAMINA_FUNCTOR

}  // namespace lamina::cuda
