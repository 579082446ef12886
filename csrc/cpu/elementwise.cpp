// elementwise: signs, reciprocal roots, divisions rounded down and their remainders
// (ops/elementwise.h).
//
// Method        a = q b + r with q = a / b towards zero: the quotient as it is rounded is too large
//               by at most one whole number, and then r, which is exact, has the other sign. Where
//               q leaves no bits for a fraction, element by element.
// Partitioning  ranges of kGrain elements.
// Floor         one read and one write of the tensor.
#include "ops/elementwise.h"

#include "core/threads.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"
#include "shared/floor_division.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::Elementwise;
using ops::ElementwiseArgs;

static constexpr int64_t kGrain = 16384;

struct Sign {
  template <class T>
  LAMINA_INLINE static Vec<T> of(Vec<T> a, Vec<T>) {
    return a > T(0) ? broadcast(T(1)) : a < T(0) ? broadcast(T(-1)) : a == T(0) ? Vec<T>{} : a;
  }
};

struct Rsqrt {
  template <class T>
  LAMINA_INLINE static Vec<T> of(Vec<T> a, Vec<T>) {
    return T(1) / square_root<T>(a);
  }
};

struct Cube {
  template <class T>
  LAMINA_INLINE static Vec<T> of(Vec<T> a, Vec<T>) {
    return a * a * a;
  }
};

struct InverseSquare {
  template <class T>
  LAMINA_INLINE static Vec<T> of(Vec<T> a, Vec<T>) {
    return T(1) / (a * a);
  }
};

// a - q b of a whole q for which that is no wider than a and b: exact. Doubles need the
// instruction.
#if defined(__FMA__)
template <class T>
inline constexpr bool kExactRests = true;
template <class T>
LAMINA_INLINE Vec<T> exact_rest(Vec<T> a, Vec<T> q, Vec<T> b) {
  return fused<T>(-q, b, a);
}
#else
template <class T>
inline constexpr bool kExactRests = sizeof(T) == 4;
template <class T>
LAMINA_INLINE Vec<T> exact_rest(Vec<T> a, Vec<T> q, Vec<T> b) {
  for (int i = 0; i < kLanes<T>; ++i) a[i] = T(double(a[i]) - double(q[i]) * double(b[i]));
  return a;
}
#endif

template <bool Quotient>
struct FloorDivision {
  template <class T>
  LAMINA_INLINE static Vec<T> of(Vec<T> a, Vec<T> b) {
    constexpr T kMost = Real<T>::kRound / 4;  // quotients whose rounding errs by less than 1/2
    const Vec<T> quotient = a / b, size = absolute<T>(quotient);
    Vec<T> whole = (size + Real<T>::kRound) - Real<T>::kRound;
    whole -= whole > size ? broadcast(T(1)) : Vec<T>{};
    whole = copy_sign<T>(whole, quotient);
    Vec<T> rest = whole == T(0) ? a : exact_rest<T>(a, whole, b);  // b may be Inf
    const Mask<T> beyond = (rest != T(0)) & ((rest < T(0)) != (a < T(0)));
    const Mask<T> same = (b < T(0)) == (a < T(0));
    rest += beyond ? (same ? b : -b) : Vec<T>{};
    whole -= beyond ? copy_sign<T>(broadcast(T(1)), quotient) : Vec<T>{};
    const Mask<T> down = (rest != T(0)) & ((rest < T(0)) != (b < T(0)));
    Vec<T> y;
    if constexpr (Quotient) {
      y = whole - (down ? broadcast(T(1)) : Vec<T>{});
      y = y == T(0) ? copy_sign<T>(Vec<T>{}, quotient) : y;
    } else {
      y = down ? rest + b : rest == T(0) ? copy_sign<T>(Vec<T>{}, b) : rest;
    }
    const Mask<T> other = kExactRests<T> ? ~(size < kMost) : Mask<T>{} == Mask<T>{};
    if (any_lane<T>(other)) [[unlikely]]
      return by_element(a, b, other, y);
    return y;
  }
  template <class V, class M>
  [[gnu::noinline]] static V by_element(V a, V b, M other, V y) {
    for (int i = 0; i < static_cast<int>(sizeof(V) / sizeof(a[0])); ++i)
      if (other[i]) y[i] = Quotient ? floor_quotient(a[i], b[i]) : floor_remainder(a[i], b[i]);
    return y;
  }
};

template <class Function, class T>
static void stretch(const ElementwiseArgs<T>& args) {
  const T *a = args.a, *b = args.b;
  const bool streamed = is_streamed<T>(args.size) && a != args.result && b != args.result;
  const Vec<T> first = broadcast(*a), second = broadcast(b ? *b : T(1));
  const auto along = [&](const auto& left, const auto& right) {
    parallel_ranges(args.size, kGrain, [&](int64_t begin, int64_t end) {
      write_line(args.result + begin, end - begin, streamed, [&](int64_t i, int64_t count) {
        return Function::template of<T>(left(begin + i, count), right(begin + i, count));
      });
      finish_streams(streamed);
    });
  };
  const auto a_at = [=](int64_t i, int64_t count) { return load_first(a + i, count, T(1)); };
  const auto b_at = [=](int64_t i, int64_t count) { return load_first(b + i, count, T(1)); };
  const auto one_a = [=](int64_t, int64_t) { return first; };
  const auto one_b = [=](int64_t, int64_t) { return second; };
  if (!args.a_moves && b && args.b_moves)
    along(one_a, b_at);
  else if (!args.a_moves)
    along(one_a, one_b);
  else if (b && args.b_moves)
    along(a_at, b_at);
  else
    along(a_at, one_b);
}

template <class T>
void elementwise_fprop_stretch(const ElementwiseArgs<T>& args) {
  if (args.size == 0) return;
  switch (args.kind) {
    case Elementwise::sign:
      return stretch<Sign>(args);
    case Elementwise::rsqrt:
      return stretch<Rsqrt>(args);
    case Elementwise::cube:
      return stretch<Cube>(args);
    case Elementwise::inverse_square:
      return stretch<InverseSquare>(args);
    case Elementwise::floor_divide:
      return stretch<FloorDivision<true>>(args);
    case Elementwise::remainder:
      return stretch<FloorDivision<false>>(args);
  }
}

LAMINA_INSTANTIATE(elementwise_fprop_stretch, ElementwiseArgs)

LAMINA_CPU_NAMESPACE_END
