// loss: losses element by element, their sums and gradients (ops/loss.h).
//
// Method        one functor a kind, the loss and its gradients on vectors; slopes are computed
//               anew from x and t, so nothing else is kept for the way back. Of sums a block of
//               losses is in L1: each is rounded, then added in double.
// Partitioning  of sums that of reduce; ranges of kGrain elements otherwise.
// Floor         one read of x and t; dgrad: and one write.
#include "ops/loss.h"

#include "cpu/reduce.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::LossArgs;
using ops::PointwiseLoss;

static constexpr int64_t kBlock = 256;    // losses that are added at a time
static constexpr int64_t kGrain = 16384;  // elements a task

template <class T>
LAMINA_INLINE Vec<T> times_sign(T size, Vec<T> v) {
  return v > T(0) ? broadcast(size) : v < T(0) ? broadcast(-size) : v;
}

// `loss`, and `by_x` and `by_t`, the gradients from g, see vectors x, t, g and the scalars a, b.
#define LAMINA_LOSS(kind, loss, by_x, by_t)                                            \
  struct Kind_##kind {                                                                 \
    template <class T>                                                                 \
    LAMINA_INLINE static Vec<T> f(Vec<T> x, Vec<T> t, [[maybe_unused]] T a,            \
                                  [[maybe_unused]] T b) {                              \
      return loss;                                                                     \
    }                                                                                  \
    template <class T>                                                                 \
    LAMINA_INLINE static Vec<T> dx(Vec<T> g, Vec<T> x, Vec<T> t, [[maybe_unused]] T a, \
                                   [[maybe_unused]] T b) {                             \
      return by_x;                                                                     \
    }                                                                                  \
    template <class T>                                                                 \
    LAMINA_INLINE static Vec<T> dt(Vec<T> g, Vec<T> x, [[maybe_unused]] Vec<T> t,      \
                                   [[maybe_unused]] T a, [[maybe_unused]] T b) {       \
      return by_t;                                                                     \
    }                                                                                  \
  };
#define LAMINA_LOSS_OF_DIFFERENCE(kind, loss, by_difference)                           \
  struct Kind_##kind {                                                                 \
    template <class T>                                                                 \
    LAMINA_INLINE static Vec<T> f(Vec<T> x, Vec<T> t, [[maybe_unused]] T a,            \
                                  [[maybe_unused]] T b) {                              \
      [[maybe_unused]] const Vec<T> difference = x - t, d = absolute<T>(difference);   \
      return loss;                                                                     \
    }                                                                                  \
    template <class T>                                                                 \
    LAMINA_INLINE static Vec<T> dx(Vec<T> g, Vec<T> x, Vec<T> t, [[maybe_unused]] T a, \
                                   [[maybe_unused]] T b) {                             \
      const Vec<T> difference = x - t;                                                 \
      return g * (by_difference);                                                      \
    }                                                                                  \
    template <class T>                                                                 \
    LAMINA_INLINE static Vec<T> dt(Vec<T> g, Vec<T> x, Vec<T> t, T a, T b) {           \
      return -dx<T>(g, x, t, a, b);                                                    \
    }                                                                                  \
  };

// (1 - t) sigmoid(x) - t sigmoid(-x), exact near labels of 0 and 1.
template <class T>
LAMINA_INLINE Vec<T> slope_of_labels(Vec<T> x, Vec<T> t) {
  const Vec<T> e = exp_nonpositive<T>(-absolute<T>(x)), large = T(1) / (T(1) + e);
  const Vec<T> small = e * large, other = T(1) - t;
  return x < T(0) ? other * small - t * large : other * large - t * small;
}
template <class T>
LAMINA_INLINE Vec<T> loss_of_labels(Vec<T> x, Vec<T> t) {
  const Vec<T> both = softplus<T>(-absolute<T>(x));
  return t * (both + at_least<T>(-x, T(0))) + (T(1) - t) * (both + at_least<T>(x, T(0)));
}

// log(1 - x) for 0 <= x <= 1: what 1 - x lost, the factor gives back.
template <class T>
LAMINA_INLINE Vec<T> log_rest(Vec<T> x) {
  const Vec<T> rest = T(1) - x, lost = T(1) - rest;
  return lost == T(0) ? -x : log<T>(rest) * (x / lost);
}
template <class T>
LAMINA_INLINE Vec<T> limited(Vec<T> log) {
  return at_least<T>(log, T(-100));
}
template <class T>
LAMINA_INLINE Vec<T> slope_of_probability(Vec<T> x, Vec<T> t) {
  return (x - t) / at_least<T>(x * (T(1) - x), T(1e-12));
}

LAMINA_LOSS_OF_DIFFERENCE(absolute, d, times_sign<T>(T(1), difference))
LAMINA_LOSS_OF_DIFFERENCE(squared, difference* difference, T(2) * difference)
LAMINA_LOSS_OF_DIFFERENCE(smooth_l1, d < a ? d * d * b : d - T(0.5) * a,
                          absolute<T>(difference) < a ? T(2) * b * difference
                                                      : times_sign<T>(T(1), difference))
LAMINA_LOSS_OF_DIFFERENCE(huber, d < a ? T(0.5) * d * d : a * (d - T(0.5) * a),
                          absolute<T>(difference) < a ? difference : times_sign<T>(a, difference))
LAMINA_LOSS(logits, (T(1) - t) * x + softplus<T>(-x), g* slope_of_labels<T>(x, t), g * -x)
LAMINA_LOSS(soft_labels, loss_of_labels<T>(x, t), g* slope_of_labels<T>(x, t), g * -x)
LAMINA_LOSS(probability, (t - T(1)) * limited<T>(log_rest<T>(x)) - t * limited<T>(log<T>(x)),
            g* slope_of_probability<T>(x, t),
            g*(limited<T>(log_rest<T>(x)) - limited<T>(log<T>(x))))
LAMINA_LOSS(soft_margin, softplus<T>(-(t* x)), g * -(t * sigmoid<T>(-(t * x))),
            g * -(x * sigmoid<T>(-(t * x))))
LAMINA_LOSS(ranking, at_least<T>(a - t * x, T(0)), a - t * x >= T(0) ? g * -t : Vec<T>{},
            a - t * x >= T(0) ? g * -x : Vec<T>{})
#undef LAMINA_LOSS
#undef LAMINA_LOSS_OF_DIFFERENCE

// The sum of a piece's losses, lane by lane.
template <class Kind, class T>
struct Total {
  const T* t;
  T a, b;
  Wide lanes = {};

  LAMINA_INLINE void add(const T* x, int64_t place, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += kBlock)
      add_block(x + begin, t + place + begin, min_of(kBlock, count - begin));
  }
  // By way of memory: beside the sums the exponentials run short of registers.
  LAMINA_INLINE void add_block(const T* x, const T* targets, int64_t size) {
    alignas(64) T losses[kBlock];
    const T first = a, second = b;
    write_line(losses, size, false, [&](int64_t i, int64_t count) {
      return Kind::template f<T>(load_first(x + i, count), load_first(targets + i, count), first,
                                 second);
    });
    Wide sums[2][2] = {};
    int64_t i = 0;
    for (; i + 2 * kLanes<T> <= size; i += 2 * kLanes<T>)
#pragma GCC unroll 2
      for (int c = 0; c < 2; ++c) add_loss(sums[c], load(losses + i + c * kLanes<T>));
    for (; i < size; i += kLanes<T>) add_loss(sums[0], load_first(losses + i, size - i));
    lanes += (sums[0][0] + sums[1][0]) + (sums[0][1] + sums[1][1]);
  }
  LAMINA_INLINE static void add_loss(Wide (&sums)[2], Vec<T> v) {
    if constexpr (sizeof(T) == 8) {
      sums[0] += v;
    } else {
      Narrow half[2];
      __builtin_memcpy(half, &v, sizeof v);
      sums[0] += widened(half[0]), sums[1] += widened(half[1]);
    }
  }
  LAMINA_INLINE void join(const Total& next) { lanes += next.lanes; }
};

// result[i] = value(i, count) by vectors.
template <class T, class Value>
static void write_each(const LossArgs<T>& args, const Value& value) {
  const bool streamed = args.result != args.grad_y && is_streamed<T>(args.size);
  parallel_ranges(args.size, kGrain, [&](int64_t begin, int64_t end) {
    write_line(args.result + begin, end - begin, streamed,
               [&](int64_t i, int64_t count) { return value(begin + i, count); });
    finish_streams(streamed);
  });
}

template <class Kind, class T>
static void fprop(const LossArgs<T>& args) {
  const T a = args.a, b = args.b;
  if (args.reduced)
    return reduce_lines({1, 1, 1, args.size}, args.x, Total<Kind, T>{args.t, a, b},
                        [&](int64_t, const Total<Kind, T>& total) {
                          const double sum = sum_lanes<double>(total.lanes);
                          *args.result = static_cast<T>(sum / args.divisor);
                        });
  write_each(args, [&](int64_t i, int64_t count) {
    return Kind::template f<T>(load_first(args.x + i, count), load_first(args.t + i, count), a, b);
  });
}

template <class Kind, class T>
static void dgrad(const LossArgs<T>& args) {
  const T a = args.a, b = args.b;
  const Vec<T> shared = broadcast(args.reduced ? *args.grad_y / T(args.divisor) : T(0));
  const auto write = [&](const auto& gradient) {
    write_each(args, [&](int64_t i, int64_t count) {
      const Vec<T> g = args.reduced ? shared : load_first(args.grad_y + i, count);
      return gradient(g, load_first(args.x + i, count), load_first(args.t + i, count));
    });
  };
  if (args.of_target)
    write([=](Vec<T> g, Vec<T> x, Vec<T> t) { return Kind::template dt<T>(g, x, t, a, b); });
  else
    write([=](Vec<T> g, Vec<T> x, Vec<T> t) { return Kind::template dx<T>(g, x, t, a, b); });
}

template <class T>
void loss_fprop_pointwise(const LossArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind)   \
  case PointwiseLoss::kind: \
    return fprop<Kind_##kind>(args);
    LAMINA_POINTWISE_LOSSES(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

template <class T>
void loss_dgrad_pointwise(const LossArgs<T>& args) {
  switch (args.kind) {
#define LAMINA_CASE(kind)   \
  case PointwiseLoss::kind: \
    return dgrad<Kind_##kind>(args);
    LAMINA_POINTWISE_LOSSES(LAMINA_CASE)
#undef LAMINA_CASE
  }
}

LAMINA_INSTANTIATE(loss_fprop_pointwise, LossArgs)
LAMINA_INSTANTIATE(loss_dgrad_pointwise, LossArgs)

LAMINA_CPU_NAMESPACE_END
