// The largest of each window and where it lies, a vector of windows at a time.
#pragma once

#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

// The largest values of a vector of windows so far, and where they lie.
template <class T>
struct Largest {
  Vec<T> value = broadcast<T>(-T(__builtin_inf()));
  Mask<T> offset = {};

  // NaN wins and stays; the first of equals stays.
  LAMINA_INLINE void offer(Vec<T> candidate, LaneInteger<T> at) {
    const Mask<T> stays = (candidate <= value) | (value != value);
    value = stays ? value : candidate;
    offset = stays ? offset : Mask<T>{} + at;
  }
};

// The same where no candidate is NaN: comparisons do not wait for each other. NaN, and infinities
// of both signs, show in the sum.
template <class T>
struct LargestOrdered {
  Vec<T> value = broadcast<T>(-T(__builtin_inf())), sum = {};
  Mask<T> offset = {};

  LAMINA_INLINE void offer(Vec<T> candidate, LaneInteger<T> at) {
    offset = candidate > value ? Mask<T>{} + at : offset;
    value = larger<T>(candidate, value);
    sum += candidate;
  }
  LAMINA_INLINE bool holds() const { return !any_lane<T>(sum != sum); }
};

// Vectors of a row at the taps of windows which begin at `column` and every STRIDE after it. Lanes
// beyond the ends of the row, where not all are INSIDE, read as `fill`. TAPS is 0 where the taps,
// or a step other than 1, are known at run time only.
template <class T, int STRIDE, int TAPS, bool INSIDE>
class Taps {
 public:
  LAMINA_INLINE Taps(int64_t column, int64_t in, T fill) : column_(column), in_(in), fill_(fill) {
    if constexpr (!INSIDE)
#pragma GCC unroll 4
      for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 2
        for (int half = 0; half < STRIDE; ++half) {
          const int64_t from = column + t + half * kLanes<T>;
          lanes_[t][half] = Lanes<T>(-from, in - from);
        }
  }
  // The columns of tap t, `offset` after the window's first: a vector, and with half = 1 the next.
  LAMINA_INLINE Vec<T> load(const T* row, int64_t t, int64_t offset, int half = 0) const {
    const int64_t from = column_ + offset + half * kLanes<T>;
    if constexpr (INSIDE)
      return cpu::LAMINA_ISA::load(row + from);
    else if constexpr (TAPS > 0)
      return lanes_[t][half].load(row + from, fill_);
    else
      return load_lanes(row + from, -from, in_ - from, fill_);
  }

 private:
  int64_t column_, in_;
  T fill_;
  Lanes<T> lanes_[TAPS > 0 ? TAPS : 1][STRIDE];
};

// Offers the taps of one row to a vector of windows; `at` is where the row lies.
template <class T, int STRIDE, int TAPS, bool INSIDE, class Found>
LAMINA_INLINE void offer_row(Found& largest, const Taps<T, STRIDE, TAPS, INSIDE>& windows,
                             const T* row, int64_t taps, int64_t step, LaneInteger<T> at) {
  if constexpr (STRIDE == 2 && TAPS > 0) {
#pragma GCC unroll 4
    for (int t = 0; t < TAPS; t += 2) {
      const Vec<T> low = windows.load(row, t, t), high = windows.load(row, t, t, 1);
      largest.offer(every_other<T, false>(low, high), at + t);
      if (t + 1 < TAPS) largest.offer(every_other<T, true>(low, high), at + t + 1);
    }
  } else {
#pragma GCC unroll 4
    for (int64_t t = 0; t < (TAPS > 0 ? TAPS : taps); ++t) {
      const int64_t offset = t * (TAPS > 0 ? 1 : step);
      Vec<T> v = windows.load(row, t, offset);
      if constexpr (STRIDE == 2) v = every_other<T, false>(v, windows.load(row, t, offset, 1));
      largest.offer(v, at + static_cast<LaneInteger<T>>(offset));
    }
  }
}

template <class T>
LAMINA_INLINE void store_index(int64_t* index, int64_t count, Mask<T> offset, int64_t first,
                               bool streamed) {
  constexpr int kHalf = kLanes<double>;
  typedef LaneInteger<T> Half __attribute__((vector_size(kHalf * sizeof(LaneInteger<T>))));
#pragma GCC unroll 2
  for (int i = 0; i < kLanes<T>; i += kHalf) {
    Half half;
    __builtin_memcpy(&half, reinterpret_cast<char*>(&offset) + i * sizeof(LaneInteger<T>),
                     sizeof half);
    const Mask<double> wide = __builtin_convertvector(half, Mask<double>) + first;
    store_result(reinterpret_cast<double*>(index) + i, count - i,
                 reinterpret_cast<Vec<double>>(wide), streamed);
  }
}

// write(largest) after find(largest), which offers all candidates: as if none were NaN, and once
// more where one is.
template <class Ordered, class Any, class Find, class Write>
LAMINA_INLINE void find_largest(const Find& find, const Write& write) {
  Ordered ordered;
  find(ordered);
  if (ordered.holds()) return write(ordered);
  Any any;
  find(any);
  write(any);
}

LAMINA_CPU_NAMESPACE_END
