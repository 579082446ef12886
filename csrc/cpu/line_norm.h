// Moments of lines, the sums of their gradients, and lines made of both: what batch, group and
// layer norm have in common.
#pragma once

#include "core/threads.h"
#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kCached = 32768;  // elements of each of three tensors that L2 holds

template <class T>
inline constexpr int64_t kPrefetched = kPrefetchBytes / static_cast<int64_t>(sizeof(T));

struct TwoSums {
  double first = 0, second = 0;
};
// The same before the lanes are summed.
template <class T>
struct LaneSums {
  Vec<T> first, second;
  LAMINA_INLINE TwoSums total() const {
    return {double(sum_lanes<T>(first)), double(sum_lanes<T>(second))};
  }
};
// Two sums over i of what term(i, count, first, second) adds: a vector of elements at i.
template <class T, class Term>
LAMINA_INLINE LaneSums<T> two_sums(int64_t size, const Term& term) {
  Vec<T> first[4] = {}, second[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes<T> <= size; i += 4 * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) term(i + c * kLanes<T>, int64_t{kLanes<T>}, first[c], second[c]);
  for (; i < size; i += kLanes<T>)
    term(i, min_of<int64_t>(kLanes<T>, size - i), first[0], second[0]);
  return {(first[0] + first[1]) + (first[2] + first[3]),
          (second[0] + second[1]) + (second[2] + second[3])};
}

// The sums of a set of lines: lane by lane for some of them, in double precision from then on.
template <class T>
class LineSums {
 public:
  LAMINA_INLINE void add(const LaneSums<T>& line) {
    lanes_.first += line.first, lanes_.second += line.second;
    if (++lines_ == kLines) flush();
  }
  LAMINA_INLINE TwoSums total() {
    flush();
    return sum_;
  }

 private:
  static constexpr int kLines = 16;
  LAMINA_INLINE void flush() {
    const TwoSums some = lanes_.total();
    sum_.first += some.first, sum_.second += some.second;
    lanes_ = LaneSums<T>{}, lines_ = 0;
  }

  LaneSums<T> lanes_ = {};
  TwoSums sum_;
  int lines_ = 0;
};

// Sums of x - shift and of its squares. ASK: for elements further on, of lines that lie beyond L2.
template <bool ASK = false, class T>
LAMINA_INLINE LaneSums<T> moments(const T* x, T shift, int64_t size) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& squares) {
    if constexpr (ASK) __builtin_prefetch(x + i + kPrefetched<T>);
    const Vec<T> centred = load_first(x + i, count, shift) - shift;
    sum += centred;
    squares += centred * centred;
  });
}

// Sums of grad_y and of grad_y (x - mean), where slope(i, count, centred) is grad_y.
template <class T, class Slope>
LAMINA_INLINE LaneSums<T> slopes(const T* x, T mean, int64_t size, const Slope& slope) {
  return two_sums<T>(size, [&](int64_t i, int64_t count, Vec<T>& sum, Vec<T>& dot) {
    const Vec<T> centred = load_first(x + i, count, mean) - mean;
    const Vec<T> g = slope(i, count, centred);
    sum += g;
    dot += g * centred;
  });
}

template <class T>
LAMINA_INLINE T reciprocal_root(T value) {
  return T(1 / __builtin_sqrt(double(value)));
}

// result = f((x - mean) * scale + shift). Meanwhile asks for the elements at `wanted`, one for
// every Pace.
template <int Pace, class T, class Function>
LAMINA_INLINE void affine_line(const T* x, T mean, T scale, T shift, T* result, int64_t size,
                               bool streamed, const T* wanted, const Function& f) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    __builtin_prefetch(wanted + i / Pace);
    return f(i, count, (load_first(x + i, count) - mean) * scale + shift);
  });
}

// result = grad_y * slope - ((x - mean) * dot + sum), where own(i, count, centred) is grad_y.
// Meanwhile asks for the elements at two other places, one for every Pace.
template <int Pace = 2, class T, class Slope>
LAMINA_INLINE void gradient_line(const T* x, T slope, T mean, T dot, T sum, T* result, int64_t size,
                                 bool streamed, const T* wanted, const T* wanted_too,
                                 const Slope& own) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    __builtin_prefetch(wanted + i / Pace);
    __builtin_prefetch(wanted_too + i / Pace);
    const Vec<T> centred = load_first(x + i, count) - mean;
    return own(i, count, centred) * slope - (centred * dot + sum);
  });
}

// result = grad_y * slope, likewise.
template <int Pace = 2, class T, class Slope>
LAMINA_INLINE void fixed_gradient_line(const T* x, T slope, T mean, T* result, int64_t size,
                                       bool streamed, const T* wanted, const Slope& own) {
  write_line(result, size, streamed, [&](int64_t i, int64_t count) {
    __builtin_prefetch(wanted + i / Pace);
    return own(i, count, load_first(x + i, count) - mean) * slope;
  });
}

// grad_y as it lies in memory, for those above.
template <class T>
struct StoredGradient {
  const T* grad_y;
  LAMINA_INLINE Vec<T> operator()(int64_t i, int64_t count, Vec<T>) const {
    return load_first(grad_y + i, count);
  }
};

// The mean of a few elements, from which sums of squares lose no digits.
template <class T>
LAMINA_INLINE T near_mean(const T* x, int64_t size, int64_t most) {
  const int64_t sample = min_of(size, most);
  return sample > 0 ? T(moments(x, T(0), sample).total().first / double(sample)) : T(0);
}

// Mean and variance of `count` elements from their moments about `shift`. False where that lies so
// far from the mean that the difference of the sums has lost digits.
template <class T>
LAMINA_INLINE bool take_moments(const TwoSums& sums, double count, T shift, T& mean, T& var) {
  const double offset = sums.first / count, square = sums.second / count - offset * offset;
  mean = T(shift + offset), var = square < 0 ? T(0) : T(square);
  return offset * offset <= square;
}

LAMINA_CPU_NAMESPACE_END
