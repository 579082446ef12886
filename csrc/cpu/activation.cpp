// activation and prelu: y = f(x) element by element, and the gradients.
//
// Method        one functor a kind, f and f' on vectors; f' is recomputed from x, so nothing but x
//               is kept for the way back.
// Partitioning  ranges of kGrain elements; the last vector of a range is padded, never branched on.
// Floor         one read and one write (dgrad: two reads) of the tensor.
#include "ops/activation.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Activation;
using ops::ActivationArgs;
using ops::PreluArgs;

static constexpr int64_t kGrain = 16384;  // elements a task: 64 KiB of float in and out

// f and d see vectors x and the scalars a, b. `x - x` is 0, or NaN for NaN and Inf.
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
  };

static constexpr double kInverseSqrt2 = 0.70710678118654752440;
static constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
static constexpr double kSqrt2OverPi = 0.79788456080286535588;
static constexpr double kGeluCubic = 0.044715;

// x * gate with 0 * -Inf = 0: these functions tend to 0 on the left.
template <class T>
LAMINA_INLINE Vec<T> gated(Vec<T> x, Vec<T> gate) {
  return x == -broadcast<T>(T(__builtin_inf())) ? Vec<T>{} : x * gate;
}
// gate + x * bump, whose second term tends to 0 on both sides.
template <class T>
LAMINA_INLINE Vec<T> gated_slope(Vec<T> x, Vec<T> gate, Vec<T> bump) {
  return absolute<T>(x) == broadcast<T>(T(__builtin_inf())) ? gate : gate + x * bump;
}
template <class T>
LAMINA_INLINE Vec<T> gelu_gate(Vec<T> x) {
  return tanh<T>(T(kSqrt2OverPi) * (x + T(kGeluCubic) * x * x * x));
}
template <class T>
LAMINA_INLINE Vec<T> gelu_tanh_slope(Vec<T> x) {
  const Vec<T> t = gelu_gate<T>(x);
  const Vec<T> bump =
      T(0.5) * (T(1) - t * t) * T(kSqrt2OverPi) * (T(1) + T(3 * kGeluCubic) * x * x);
  return gated_slope<T>(x, T(0.5) * (T(1) + t), bump);
}
template <class T>
LAMINA_INLINE Vec<T> mish_slope(Vec<T> x) {
  const Vec<T> t = tanh<T>(softplus<T>(x));
  return gated_slope<T>(x, t, (T(1) - t * t) * sigmoid<T>(x));
}
template <class T>
LAMINA_INLINE Vec<T> silu_slope(Vec<T> x) {
  return gated_slope<T>(x, sigmoid<T>(x), sigmoid<T>(x) * sigmoid<T>(-x));
}
template <class T>
LAMINA_INLINE Vec<T> clamp(Vec<T> x, T low, T high) {
  return x < low ? broadcast<T>(low) : x > high ? broadcast<T>(high) : x;
}

LAMINA_FUNCTOR(relu, x <= T(0) ? zero : x, x <= T(0) ? zero : one)
LAMINA_FUNCTOR(leaky_relu, x > T(0) ? x : a * x, x > T(0) ? one : broadcast<T>(a))
LAMINA_FUNCTOR(elu, x > T(0) ? x : a * expm1<T>(x), x > T(0) ? one : a * exp<T>(x))
LAMINA_FUNCTOR(selu, b*(x > T(0) ? x : a * expm1<T>(x)), b*(x > T(0) ? one : a * exp<T>(x)))
LAMINA_FUNCTOR(celu, x > T(0) ? x : a * expm1<T>(x / a), x > T(0) ? one : exp<T>(x / a))
LAMINA_FUNCTOR(gelu, gated<T>(x, T(0.5) * erfc<T>(x * T(-kInverseSqrt2))),
               gated_slope<T>(x, T(0.5) * erfc<T>(x * T(-kInverseSqrt2)),
                              T(kInverseSqrt2Pi) * exp<T>(T(-0.5) * x * x)))
LAMINA_FUNCTOR(gelu_tanh, gated<T>(x, T(0.5) * (T(1) + gelu_gate<T>(x))), gelu_tanh_slope<T>(x))
LAMINA_FUNCTOR(silu, gated<T>(x, sigmoid<T>(x)), silu_slope<T>(x))
LAMINA_FUNCTOR(mish, gated<T>(x, tanh<T>(softplus<T>(x))), mish_slope<T>(x))
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
               (x >= -a) & (x <= a) ? zero : one)
LAMINA_FUNCTOR(hardshrink, (x >= -a) & (x <= a) ? zero : x, (x >= -a) & (x <= a) ? zero : one)
LAMINA_FUNCTOR(tanhshrink, x - tanh<T>(x), tanh<T>(x) * tanh<T>(x))
LAMINA_FUNCTOR(hardtanh, clamp<T>(x, a, b), (x <= a) | (x >= b) ? zero : one)
LAMINA_FUNCTOR(hardsigmoid, clamp<T>(x + T(3), T(0), T(6)) / T(6),
               (x <= T(-3)) | (x >= T(3)) ? zero : one / T(6))
LAMINA_FUNCTOR(hardswish,
               x <= T(-3)  ? zero
               : x >= T(3) ? x
                           : x * (x + T(3)) / T(6),
               x <= T(-3) ? zero
               : x < T(3) ? x / T(3) + T(0.5)
                          : one)
LAMINA_FUNCTOR(threshold, x <= a ? broadcast<T>(b) : x, x <= a ? zero : one)
LAMINA_FUNCTOR(logsigmoid, -softplus<T>(-x), sigmoid<T>(-x))
LAMINA_FUNCTOR(sigmoid, sigmoid<T>(a* x), a* sigmoid<T>(a* x) * sigmoid<T>(-a * x))
LAMINA_FUNCTOR(tanh, tanh<T>(x), T(1) - tanh<T>(x) * tanh<T>(x))
LAMINA_FUNCTOR(step, x != x ? x : x > T(0) ? broadcast<T>(T(1)) : zero, zero)
#undef LAMINA_FUNCTOR

// body(i, count): one vector of `count` elements at i, fewer than a full one only at the end.
template <class T, class Body>
static void for_each_vector(int64_t size, Body body) {
  parallel_ranges(size, kGrain, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kLanes<T> <= end; i += kLanes<T>) store(body.result + i, body(i));
    if (i < end) store_first(body.result + i, end - i, body(i, end - i));
  });
}

template <class Kind, class T>
struct Forward {
  const T* x;
  T* result;
  T a, b;
  LAMINA_INLINE Vec<T> operator()(int64_t i) const {
    return Kind::template f<T>(load(x + i), a, b);
  }
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count) const {
    return Kind::template f<T>(load_first(x + i, count), a, b);
  }
};

template <class Kind, class T>
struct Backward {
  const T* x;
  const T* grad_y;
  T* result;
  T a, b;
  LAMINA_INLINE Vec<T> operator()(int64_t i) const {
    return load(grad_y + i) * Kind::template d<T>(load(x + i), a, b);
  }
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count) const {
    return load_first(grad_y + i, count) * Kind::template d<T>(load_first(x + i, count), a, b);
  }
};

template <class T>
void activation_fprop_elementwise(const ActivationArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind)                \
  case Activation::kind:                 \
    return for_each_vector<T>(args.size, \
                              Forward<Kind_##kind, T>{args.x, args.result, args.a, args.b});
    LAMINA_ACTIVATIONS(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

template <class T>
void activation_dgrad_elementwise(const ActivationArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind)      \
  case Activation::kind:       \
    return for_each_vector<T>( \
        args.size, Backward<Kind_##kind, T>{args.x, args.grad_y, args.result, args.a, args.b});
    LAMINA_ACTIVATIONS(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

// One plane of prelu: y = x > 0 ? source : slope * source.
template <class T>
static void prelu_plane(const T* x, const T* source, T slope, T* result, int64_t size) {
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) {
    const Vec<T> s = load(source + i);
    store(result + i, load(x + i) > T(0) ? s : slope * s);
  }
  for (; i < size; ++i) result[i] = x[i] > 0 ? source[i] : slope * source[i];
}

template <class T>
void prelu_fprop_elementwise(const PreluArgs<T>& args) {
  parallel_for(args.n * args.c, [&](int64_t plane) {
    const T* x = args.x + plane * args.inner;
    prelu_plane(x, x, args.weight[plane % args.c % args.weights], args.result + plane * args.inner,
                args.inner);
  });
}

template <class T>
void prelu_dgrad_elementwise(const PreluArgs<T>& args) {
  parallel_for(args.n * args.c, [&](int64_t plane) {
    const int64_t at = plane * args.inner;
    prelu_plane(args.x + at, args.grad_y + at, args.weight[plane % args.c % args.weights],
                args.result + at, args.inner);
  });
}

template <class T>
static T prelu_plane_sum(const T* x, const T* grad_y, int64_t size) {
  Vec<T> sum = {};
  int64_t i = 0;
  for (; i + kLanes<T> <= size; i += kLanes<T>) {
    const Vec<T> v = load(x + i);
    sum += v > T(0) ? Vec<T>{} : v * load(grad_y + i);
  }
  T tail = 0;
  for (; i < size; ++i) tail += x[i] > 0 ? T(0) : x[i] * grad_y[i];
  return sum_lanes<T>(sum) + tail;
}

// One task per weight: its planes are summed in order.
template <class T>
void prelu_wgrad_elementwise(const PreluArgs<T>& args) {
  parallel_for(args.weights, [&](int64_t w) {
    T sum = 0;
    for (int64_t plane = w; plane < args.n * args.c; ++plane)
      if (plane % args.c % args.weights == w)
        sum += prelu_plane_sum(args.x + plane * args.inner, args.grad_y + plane * args.inner,
                               args.inner);
    args.result[w] = sum;
  });
}

LAMINA_INSTANTIATE(activation_fprop_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(activation_dgrad_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(prelu_fprop_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_dgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_wgrad_elementwise, PreluArgs)

LAMINA_CPU_NAMESPACE_END
