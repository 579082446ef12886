// The activations of ops/activation.h on vectors, f and f', and the epilogues made of them.
#pragma once

#include "cpu/gelu_tail.h"
#include "cpu/simd_math.h"
#include "ops/epilogue.h"

LAMINA_CPU_NAMESPACE_BEGIN

// v, loaded whole: GCC makes a choice of what was just loaded a masked load, which waits for the
// mask. From memory that is half the speed.
template <class T>
LAMINA_INLINE Vec<T> in_register(Vec<T> v) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(v));
#endif
  return v;
}

// f and d, its derivative, see vectors x and the scalars a, b.
#define LAMINA_FUNCTOR(kind, value, slope)                                                \
  struct Kind_##kind {                                                                    \
    template <class T>                                                                    \
    LAMINA_INLINE static Vec<T> f(Vec<T> x, [[maybe_unused]] T a, [[maybe_unused]] T b) { \
      const Vec<T> zero = {};                                                             \
      (void)zero;                                                                         \
      return value;                                                                       \
    }                                                                                     \
    template <class T>                                                                    \
    LAMINA_INLINE static Vec<T> d([[maybe_unused]] Vec<T> x, [[maybe_unused]] T a,        \
                                  [[maybe_unused]] T b) {                                 \
      const Vec<T> zero = {}, one = broadcast<T>(T(1));                                   \
      (void)zero, (void)one;                                                              \
      return slope;                                                                       \
    }                                                                                     \
    template <class T>                                                                    \
    LAMINA_INLINE static Vec<T> gradient(Vec<T> grad_y, Vec<T> x, T a, T b) {             \
      const Vec<T> by_x = d<T>(x, a, b);                                                  \
      if constexpr (ops::has_constant_part(ops::Activation::kind))                        \
        return by_x == T(0) ? Vec<T>{} : in_register<T>(grad_y) * by_x;                   \
      return grad_y * by_x;                                                               \
    }                                                                                     \
  };

static constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
static constexpr double kSqrt2OverPi = 0.79788456080286535588;
static constexpr double kGeluCubic = 0.044715;

// gate + x * bump, whose second term tends to 0 on both sides.
template <class T>
LAMINA_INLINE Vec<T> gated_slope(Vec<T> x, Vec<T> gate, Vec<T> bump) {
  return absolute<T>(x) == broadcast<T>(T(__builtin_inf())) ? gate : gate + x * bump;
}
// max(x, 0) - |x| Phi(-|x|). Each element is computed alike whatever lies beside it.
template <class T>
LAMINA_INLINE Vec<T> gelu(Vec<T> x) {
  const Vec<T> positive = at_least<T>(x, T(0)), magnitude = absolute<T>(x);
  const auto far_tail = [&] {
    Vec<T> bell;
    return normal_tail<true, T>(at_most<T>(magnitude, Real<T>::kNormalZero), bell);
  };
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> z = at_most<T>(magnitude, kGeluNear), tail = near_gelu_tail(z);
    const Mask<T> far = x < -kGeluNear;
    if (any_lane<T>(far)) [[unlikely]]
      return positive - (far ? far_tail() : tail);
    return positive - tail;
  }
#endif
  return positive - far_tail();
}
template <class T>
LAMINA_INLINE Vec<T> gelu_slope(Vec<T> x) {
  Vec<T> bell;
  const Vec<T> z = at_most<T>(absolute<T>(x), Real<T>::kNormalZero);
  const Vec<T> tail = normal_tail<false, T>(z, bell);
  return gated_slope<T>(x, x < T(0) ? tail : T(1) - tail, T(kInverseSqrt2Pi) * bell);
}
// (1 + tanh(u)) / 2 = sigmoid(2 u): g = 2 u = x (a + b x^2), and what it is too large by, for e^-g
// sees many units of that. a in two parts, the first with zeros at its end: sums with it are exact.
template <class T>
LAMINA_INLINE Vec<T> gelu_gate(Vec<T> x, Vec<T>& excess) {
  constexpr T kHigh = T(1.59576416015625), kLow = T(2 * kSqrt2OverPi - 1.59576416015625);
  constexpr T kCubic = T(2 * kSqrt2OverPi * kGeluCubic);
  constexpr T kCubicLow = T(2 * kSqrt2OverPi * kGeluCubic - double(kCubic));
  const Vec<T> square = x * x, p = kCubic * square + kHigh, g = x * p;
  const Vec<T> p_low = product_error<T>(broadcast<T>(kCubic), square, p - kHigh) +
                       (kCubic * product_error<T>(x, x, square) + (kCubicLow * square + kLow));
  excess = -(product_error<T>(x, p, g) + x * p_low);
  return g;
}
// x times its gate is 0 from kGateZero on to the left; the gate is 1 from kGateOne on.
template <class T>
inline constexpr T kGateZero = sizeof(T) == 4 ? -11 : -22;
template <class T>
inline constexpr T kGateOne = 8;
template <class T>
LAMINA_INLINE Vec<T> gelu_tanh(Vec<T> x) {
  const Vec<T> a = at_least<T>(x, kGateZero<T>);
  Vec<T> excess;
  const Vec<T> gate = gelu_gate<T>(at_most<T>(a, kGateOne<T>), excess);
  return logistic<T>(a, gate, excess);
}
template <class T>
LAMINA_INLINE Vec<T> gelu_tanh_slope(Vec<T> x) {
  const Vec<T> a = limit<T>(x, kGateZero<T>, kGateOne<T>);
  Vec<T> excess;
  const Vec<T> g = gelu_gate<T>(a, excess), gate = g - excess;
  const Vec<T> e = exp_nonpositive<T>(-absolute<T>(gate)), r = T(1) / (T(1) + e);
  const Vec<T> bump = e * r * r * T(2 * kSqrt2OverPi) * (T(1) + T(3 * kGeluCubic) * a * a);
  return (gate < T(0) ? e : broadcast<T>(T(1))) * r + a * bump;
}
template <class T>
LAMINA_INLINE Vec<T> silu(Vec<T> x) {
  const Vec<T> a = at_least<T>(x, Real<T>::kExpMin);
  return logistic<T>(a, at_most<T>(a, 2 * Real<T>::kTanhOne));
}
// With w = e^x and b = w (w + 2) + 2, x tanh(log(1 + w)) = x w (1 - w (1 + w) / b) to the left and
// x (1 - 2 / b) for the others: each second factor has little to lose. w = 2^n (1 + tail) = m + m
// tail in w (1 + w), b and x w, so that they are rounded once, or with the result; x itself from
// 2 kTanhOne on.
template <class T>
LAMINA_INLINE Vec<T> mish(Vec<T> x) {
  Whole<T> n;
  const Vec<T> a = at_least<T>(x, Real<T>::kExpMin);
  const Vec<T> tail = reduced_expm1<T>(at_most<T>(a, 2 * Real<T>::kTanhOne), n);
  const Vec<T> m = scaled<T>(broadcast<T>(T(1)), n), mm = m * m, sum = mm + m;
  const Vec<T> b = (sum + (m + T(2))) + tail * (mm * tail + T(2) * sum);
  const Vec<T> product = sum + tail * (mm * tail + (mm + sum));  // w (1 + w)
  const Mask<T> left = a < T(-0.3);
  const Vec<T> more = left ? a * tail : Vec<T>{};
  const Vec<T> lost = (left ? product : broadcast<T>(T(2))) / b;
  const Vec<T> y = a + (more - (a + more) * lost);
  return left ? scaled<T>(y, n) : a > 2 * Real<T>::kTanhOne ? a : y;
}
// The gate is m / (m + 2) with m = w (w + 2).
template <class T>
LAMINA_INLINE Vec<T> mish_slope(Vec<T> x) {
  const Vec<T> a = limit<T>(x, Real<T>::kExpMin, 2 * Real<T>::kTanhOne);
  const Vec<T> w = exp<T>(a), n = w * (w + T(2)), r = T(1) / (n + T(2));
  return n * r + a * (T(4) * w * (T(1) + w) * r * r);
}
template <class T>
LAMINA_INLINE Vec<T> silu_slope(Vec<T> x) {
  const Vec<T> e = exp_nonpositive<T>(-absolute<T>(x)), r = T(1) / (T(1) + e);
  return gated_slope<T>(x, (x < T(0) ? e : broadcast<T>(T(1))) * r, e * r * r);
}
template <class T>
LAMINA_INLINE Vec<T> clamp(Vec<T> x, T low, T high) {
  return x < low ? broadcast<T>(low) : x > high ? broadcast<T>(high) : x;
}

LAMINA_FUNCTOR(identity, x, one)
LAMINA_FUNCTOR(relu, x <= T(0) ? zero : x, x <= T(0) ? zero : one)
LAMINA_FUNCTOR(leaky_relu, x > T(0) ? x : a * x, x > T(0) ? one : broadcast<T>(a))
LAMINA_FUNCTOR(elu, x > T(0) ? x : a * expm1<T>(x), x > T(0) ? one : a * exp<T>(x))
LAMINA_FUNCTOR(selu, x > T(0) ? b * x : (a * b) * expm1<T>(x),
               x > T(0) ? b * one : (a * b) * exp<T>(x))
LAMINA_FUNCTOR(celu, x > T(0) ? x : a * expm1<T>(x / a), x > T(0) ? one : exp<T>(x / a))
LAMINA_FUNCTOR(gelu, gelu<T>(x), gelu_slope<T>(x))
LAMINA_FUNCTOR(gelu_tanh, gelu_tanh<T>(x), gelu_tanh_slope<T>(x))
LAMINA_FUNCTOR(silu, silu<T>(x), silu_slope<T>(x))
LAMINA_FUNCTOR(mish, mish<T>(x), mish_slope<T>(x))
LAMINA_FUNCTOR(softplus, x* a > b ? x : softplus<T>(a * x) / a, x* a > b ? one : sigmoid<T>(a * x))
LAMINA_FUNCTOR(softsign,
               absolute<T>(x) == T(__builtin_inf()) ? copy_sign<T>(broadcast<T>(T(1)), x)
                                                    : x / (T(1) + absolute<T>(x)),
               T(1) / ((T(1) + absolute<T>(x)) * (T(1) + absolute<T>(x))))
LAMINA_FUNCTOR(softshrink,
               x > a    ? x - a
               : x < -a ? x + a
               : x != x ? x
                        : zero,
               (x < -a) | (x > a) ? one : zero)
LAMINA_FUNCTOR(hardshrink, (x >= -a) & (x <= a) ? zero : x, (x < -a) | (x > a) ? one : zero)
LAMINA_FUNCTOR(tanhshrink, x - tanh<T>(x), tanh<T>(x) * tanh<T>(x))
LAMINA_FUNCTOR(hardtanh, clamp<T>(x, a, b), (x > a) & (x < b) ? one : zero)
LAMINA_FUNCTOR(hardsigmoid, clamp<T>(x + T(3), T(0), T(6)) / T(6),
               (x > T(-3)) & (x < T(3)) ? one / T(6) : zero)
LAMINA_FUNCTOR(hardswish,
               x <= T(-3)  ? zero
               : x >= T(3) ? x
                           : x * (x + T(3)) / T(6),
               x <= T(-3)  ? zero
               : x >= T(3) ? one
                           : x / T(3) + T(0.5))
LAMINA_FUNCTOR(threshold, x <= a ? broadcast<T>(b) : x, x <= a ? zero : one)
LAMINA_FUNCTOR(logsigmoid, -softplus<T>(-x), sigmoid<T>(-x))
LAMINA_FUNCTOR(sigmoid, sigmoid<T>(a* x), a* sigmoid_slope<T>(a* x))
LAMINA_FUNCTOR(tanh, tanh<T>(x), T(4) * sigmoid_slope<T>(x + x))
LAMINA_FUNCTOR(step, x != x ? x : x > T(0) ? broadcast<T>(T(1)) : zero, zero)
#undef LAMINA_FUNCTOR

template <class T>
[[gnu::noinline]] static Vec<T> activate_any(ops::Activation kind, Vec<T> x, T a, T b) {
  switch (kind) {
#define LAMINA_CASE(kind)     \
  case ops::Activation::kind: \
    return Kind_##kind::f<T>(x, a, b);
    LAMINA_ACTIVATIONS(LAMINA_CASE)
#undef LAMINA_CASE
  }
  return x;
}

// f of the epilogue for a store: the usual kinds in place, the others by a call.
template <class T>
LAMINA_INLINE Vec<T> activate(const ops::Epilogue<T>& epilogue, Vec<T> x) {
  if (epilogue.kind == ops::Activation::identity) return x;
  if (epilogue.kind == ops::Activation::relu) return Kind_relu::f<T>(x, T(0), T(0));
  if (epilogue.kind == ops::Activation::hardtanh)
    return Kind_hardtanh::f<T>(x, epilogue.a, epilogue.b);
  return activate_any<T>(epilogue.kind, x, epilogue.a, epilogue.b);
}

LAMINA_CPU_NAMESPACE_END
