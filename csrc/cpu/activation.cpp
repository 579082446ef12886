// activation and prelu: y = f(x) element by element, and the gradients.
//
// Method        one functor a kind, f and f' on vectors; f' is recomputed from x, so nothing but x
//               is kept for the way back.
// Partitioning  ranges of kGrain elements; the last vector of a range is padded, never branched on.
//               Results too large for the caches are written past them, unless an operand is
//               written over.
// Floor         one read and one write (dgrad: two reads) of the tensor.
#include "ops/activation.h"

#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Activation;
using ops::ActivationArgs;
using ops::PreluArgs;

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

// One plane of prelu: y = x > 0 ? source : slope * source.
template <class T>
static void prelu_plane(const T* x, const T* source, T slope, T* result, int64_t size,
                        bool streamed) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    const Vec<T> s = load_first(source + i, count);
    return load_first(x + i, count) > T(0) ? s : slope * s;
  });
}

// y or grad_x, plane by plane in tasks of about kGrain elements.
template <class T>
static void prelu_planes(const PreluArgs<T>& args, const T* source) {
  const bool streamed = is_streamed<T>(args.n * args.c * args.inner);
  const int64_t grain = ceil_div(kGrain, max_of<int64_t>(args.inner, 1));
  parallel_ranges(args.n * args.c, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t at = plane * args.inner;
      prelu_plane(args.x + at, source + at, args.weight[plane % args.c % args.weights],
                  args.result + at, args.inner, streamed);
    }
    finish_streams(streamed);
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
