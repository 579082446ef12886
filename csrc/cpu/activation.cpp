// activation, prelu and glu: y = f(x) element by element, and the gradients.
//
// Method        one functor a kind, f and f' on vectors; f' is recomputed from x, so nothing but x
//               is kept for the way back.
// Partitioning  ranges of kGrain elements; the last vector of a range is padded, never branched on.
//               prelu: planes, or rows where every element has a weight, or such ranges; their
//               sums for the gradient of the weight are added in order. glu: stretches of halves.
//               Results too large for the caches are written past them, unless an operand is
//               written over.
// Floor         one read and one write (dgrad: two reads) of the tensor.
#include "ops/activation.h"

#include "cpu/activate.h"
#include "cpu/reduce.h"
#include "ops/instantiate.h"
#include "ops/prelu_gradients.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Activation;
using ops::ActivationArgs;
using ops::GluArgs;
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
    return Kind::template gradient<T>(load_first(grad_y + i, count), load_first(x + i, count), a,
                                      b);
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

// The lines that prelu goes along: planes, of one weight each; runs of kGrain elements where one
// weight serves all; rows where every element of a row has its own.
template <class T>
struct PreluLines {
  int64_t total, size, count;
  bool rows;

  explicit PreluLines(const PreluArgs<T>& args) : total(args.n * args.c * args.inner) {
    rows = args.weights > 1 && args.inner == 1;
    size = args.weights == 1 ? kGrain : rows ? args.c : args.inner;
    count = size > 0 ? ceil_div(total, size) : 0;
  }
  // Calls body(line, at, size), `per_task` lines a task.
  template <class Body>
  void for_each(int64_t per_task, bool streamed, const Body& body) const {
    parallel_ranges(count, per_task, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line)
        body(line, line * size, min_of(size, total - line * size));
      finish_streams(streamed);
    });
  }
  int64_t per_task() const { return ceil_div(kGrain, max_of<int64_t>(size, 1)); }
};

// Calls body(slope) with the slope of a line's elements: slope(i, count) is a vector of them.
template <class T, class Body>
LAMINA_INLINE void with_slope(const PreluArgs<T>& args, bool rows, int64_t line, const Body& body) {
  const T* weight = args.weight;
  if (rows) return body([=](int64_t i, int64_t count) { return load_first(weight + i, count); });
  const Vec<T> slope = broadcast(weight[line % args.weights]);
  body([=](int64_t, int64_t) { return slope; });
}

// result = x > 0 ? source : slope * source
template <class T>
static void prelu_elements(const PreluArgs<T>& args, const T* source) {
  const PreluLines<T> lines(args);
  const bool streamed = is_streamed<T>(lines.total);
  lines.for_each(lines.per_task(), streamed, [&](int64_t line, int64_t at, int64_t size) {
    with_slope(args, lines.rows, line, [&](const auto& slope) {
      write_line(args.result + at, size, streamed, [&](int64_t i, int64_t count) {
        const Vec<T> s = load_first(source + at + i, count);
        return load_first(args.x + at + i, count) > T(0) ? s : slope(i, count) * s;
      });
    });
  });
}

template <class T>
void prelu_fprop_elementwise(const PreluArgs<T>& args) {
  prelu_elements(args, args.x);
}

template <class T>
void prelu_dgrad_elementwise(const PreluArgs<T>& args) {
  prelu_elements(args, args.grad_y);
}

// keep(i, count, x grad_y or 0) for a line, and its grad_x where that is given.
template <class T, class Slope, class Keep>
LAMINA_INLINE void prelu_line_gradients(const T* x, const T* grad_y, const Slope& slope, T* grad_x,
                                        int64_t size, bool streamed, const Keep& keep) {
  auto step = [&](int64_t i, int64_t count) {
    const Vec<T> v = load_first(x + i, count), g = load_first(grad_y + i, count);
    keep(i, count, v > T(0) ? Vec<T>{} : v * g);
    return v > T(0) ? g : slope(i, count) * g;
  };
  if (grad_x)
    write_line(grad_x, size, streamed, step);
  else
    along_line<T>(size, step);
}

// The gradients of the weights, from sums that are added in order: of each line, or of each element
// over blocks of rows. And grad_x where it is given.
template <class T>
static void prelu_sums(const PreluArgs<T>& args, T* grad_x, T* grad_weight) {
  const PreluLines<T> lines(args);
  const bool streamed = grad_x && is_streamed<T>(lines.total);
  const int64_t most = max_of(ceil_div(lines.count, 64), lines.per_task());
  const int64_t block = lines.rows ? min_of<int64_t>(most, 1024) : 1;
  const int64_t parts = ceil_div(lines.count, block), width = lines.rows ? args.c : 1;
  Scratch<T> sums(parts * width);
  if (lines.rows)
    for (int64_t i = 0; i < parts * width; ++i) sums[i] = 0;
  lines.for_each(
      lines.rows ? block : lines.per_task(), streamed, [&](int64_t line, int64_t at, int64_t size) {
        const T *x = args.x + at, *grad_y = args.grad_y + at;
        T* to = grad_x ? grad_x + at : nullptr;
        T* own = &sums[line / block * width];
        with_slope(args, lines.rows, line, [&](const auto& slope) {
          if (lines.rows) {
            prelu_line_gradients(x, grad_y, slope, to, size, streamed,
                                 [&](int64_t i, int64_t count, Vec<T> v) {
                                   store_first<T>(own + i, count, load_first(own + i, count) + v);
                                 });
          } else {
            Vec<T> sum = {};
            prelu_line_gradients(x, grad_y, slope, to, size, streamed,
                                 [&](int64_t, int64_t, Vec<T> v) { sum += v; });
            *own = sum_lanes<T>(sum);
          }
        });
      });
  parallel_ranges(args.weights, 256, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      double sum = 0;
      for (int64_t i = w; i < parts * width; i += args.weights) sum += double(sums[i]);
      grad_weight[w] = T(sum);
    }
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

// write(x, place of the result, size, streamed) of stretches of the halves a, whose b is args.inner
// behind.
template <class T, class Write>
LAMINA_INLINE void for_each_half(const GluArgs<T>& args, int64_t width, const Write& write) {
  const int64_t inner = args.inner;
  const bool streamed = inner >= kShortLine && is_streamed<T>(width * args.outer * inner);
  for_each_stretch(args.outer * inner, inner, [&](int64_t line, int64_t from, int64_t to) {
    write(args.x + 2 * line * inner + from, line * inner + from, width * line * inner + from,
          to - from, streamed);
    finish_streams(streamed);
  });
}

template <class T>
void glu_fprop_halves(const GluArgs<T>& args) {
  for_each_half(args, 1, [&](const T* a, int64_t, int64_t to, int64_t size, bool streamed) {
    write_line(args.result + to, size, streamed, [&](int64_t i, int64_t count) {
      return load_first(a + i, count) * sigmoid<T>(load_first(a + args.inner + i, count));
    });
  });
}

template <class T>
void glu_dgrad_halves(const GluArgs<T>& args) {
  for_each_half(args, 2, [&](const T* a, int64_t at, int64_t to, int64_t size, bool streamed) {
    const T *b = a + args.inner, *grad_y = args.grad_y + at;
    T *of_a = args.result + to, *of_b = of_a + args.inner;
    along_line<T>(size, [&](int64_t i, int64_t count) {
      const Vec<T> g = load_first(grad_y + i, count), gate = load_first(b + i, count);
      const Vec<T> e = exp_nonpositive<T>(-absolute<T>(gate)), r = T(1) / (T(1) + e), er = e * r;
      store_result<T>(of_a + i, count, g * (gate < T(0) ? er : r), streamed);
      store_result<T>(of_b + i, count, g * load_first(a + i, count) * (er * r), streamed);
    });
  });
}

LAMINA_INSTANTIATE(activation_fprop_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(activation_dgrad_elementwise, ActivationArgs)
LAMINA_INSTANTIATE(prelu_fprop_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_dgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_wgrad_elementwise, PreluArgs)
LAMINA_INSTANTIATE(prelu_gradients_elementwise, PreluGradientArgs)
LAMINA_INSTANTIATE(glu_fprop_halves, GluArgs)
LAMINA_INSTANTIATE(glu_dgrad_halves, GluArgs)

LAMINA_CPU_NAMESPACE_END
