// activation and prelu: y = f(x) element by element, and the gradients.
//
// Method        one functor a kind, f and f' on vectors; f' is recomputed from x, so nothing but x
//               is kept for the way back.
// Partitioning  ranges of kGrain elements; the last vector of a range is padded, never branched on.
//               prelu: planes, whose sums for the gradient of the weight are added in order.
//               Results too large for the caches are written past them, unless an operand is
//               written over.
// Floor         one read and one write (dgrad: two reads) of the tensor.
#include "ops/activation.h"

#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "ops/prelu_gradients.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Activation;
using ops::ActivationArgs;
using ops::PreluArgs;
using ops::PreluGradientArgs;

static constexpr int64_t kGrain = 16384;  // elements a task: 64 KiB of float in and out

// result[i] = value(i, count): one vector of `count` elements at i, fewer than a full one at the
// ends only.
template <class T, class Value>
static void for_each_vector(int64_t size, T* result, const Value& value) {
  const bool streamed = !value.reads(result) && is_streamed<T>(size);
  parallel_ranges(size, kGrain, [&](int64_t begin, int64_t end) {
    write_line(result + begin, end - begin, streamed,
               [&](int64_t i, int64_t count) { return value(begin + i, count); });
    finish_streams(streamed);
  });
}

template <class Kind, class T>
struct Forward {
  const T *x, *residual;
  T a, b;
  bool reads(const T* result) const { return x == result; }
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count) const {
    Vec<T> v = load_first(x + i, count);
    if (residual) v += load_first(residual + i, count);
    return Kind::template f<T>(v, a, b);
  }
};

template <class Kind, class T>
struct Backward {
  const T* x;
  const T* grad_y;
  T a, b;
  bool reads(const T* result) const { return x == result || grad_y == result; }
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count) const {
    return load_first(grad_y + i, count) * Kind::template d<T>(load_first(x + i, count), a, b);
  }
};

template <class T>
void activation_fprop_elementwise(const ActivationArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind)                             \
  case Activation::kind:                              \
    return for_each_vector<T>(args.size, args.result, \
                              Forward<Kind_##kind, T>{args.x, args.residual, args.a, args.b});
    LAMINA_ACTIVATIONS(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

template <class T>
void activation_dgrad_elementwise(const ActivationArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind)                             \
  case Activation::kind:                              \
    return for_each_vector<T>(args.size, args.result, \
                              Backward<Kind_##kind, T>{args.x, args.grad_y, args.a, args.b});
    LAMINA_ACTIVATIONS(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

// One plane of prelu: result = x > 0 ? source : slope * source.
template <class T>
static void prelu_plane(const T* x, const T* source, T slope, T* result, int64_t size,
                        bool streamed) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    const Vec<T> s = load_first(source + i, count);
    return load_first(x + i, count) > T(0) ? s : slope * s;
  });
}
// The same for grad_x, and the plane's sum of x grad_y where x is not positive; the sum alone
// without a result.
template <class T>
static T prelu_plane_sum(const T* x, const T* grad_y, T slope, T* result, int64_t size,
                         bool streamed) {
  Vec<T> sum = {};
  auto step = [&](int64_t i, int64_t count) {
    const Vec<T> v = load_first(x + i, count), g = load_first(grad_y + i, count);
    sum += v > T(0) ? Vec<T>{} : v * g;
    return v > T(0) ? g : slope * g;
  };
  if (result)
    write_line(result, size, streamed, step);
  else
    along_line<T>(size, step);
  return sum_lanes<T>(sum);
}

// Calls body(plane, weight) in tasks of about kGrain elements.
template <class T, class Body>
static void for_each_plane(const PreluArgs<T>& args, bool streamed, const Body& body) {
  const int64_t grain = ceil_div(kGrain, max_of<int64_t>(args.inner, 1));
  parallel_ranges(args.n * args.c, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane)
      body(plane, args.weight[plane % args.c % args.weights]);
    finish_streams(streamed);
  });
}

// y or grad_x
template <class T>
static void prelu_planes(const PreluArgs<T>& args, const T* source) {
  const bool streamed = is_streamed<T>(args.n * args.c * args.inner);
  for_each_plane(args, streamed, [&](int64_t plane, T slope) {
    const int64_t at = plane * args.inner;
    prelu_plane(args.x + at, source + at, slope, args.result + at, args.inner, streamed);
  });
}

template <class T>
void prelu_fprop_elementwise(const PreluArgs<T>& args) {
  prelu_planes(args, args.x);
}

template <class T>
void prelu_dgrad_elementwise(const PreluArgs<T>& args) {
  prelu_planes(args, args.grad_y);
}

// The weights' gradients from sums of planes, in order; and grad_x where it is given.
template <class T>
static void prelu_sums(const PreluArgs<T>& args, T* grad_x, T* grad_weight) {
  const int64_t planes = args.n * args.c;
  const bool streamed = grad_x && is_streamed<T>(planes * args.inner);
  Scratch<T> sums(planes);
  for_each_plane(args, streamed, [&](int64_t plane, T slope) {
    const int64_t at = plane * args.inner;
    sums[plane] = prelu_plane_sum(args.x + at, args.grad_y + at, slope,
                                  grad_x ? grad_x + at : nullptr, args.inner, streamed);
  });
  parallel_for(args.weights, [&](int64_t w) {
    double sum = 0;
    for (int64_t plane = w; plane < planes; plane += args.weights) sum += double(sums[plane]);
    grad_weight[w] = T(sum);
  });
}

template <class T>
void prelu_wgrad_elementwise(const PreluArgs<T>& args) {
  prelu_sums<T>(args, nullptr, args.result);
}

template <class T>
void prelu_gradients_elementwise(const PreluGradientArgs<T>& args) {
  prelu_sums<T>(args, args.result, args.grad_weight);
}

LAMINA_INSTANTIATE(activation_fprop_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(activation_dgrad_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(prelu_fprop_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_dgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_wgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_gradients_elementwise, PreluGradientArgs)

LAMINA_CPU_NAMESPACE_END
