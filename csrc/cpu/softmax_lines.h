// Lines of logits: tasks of them, their maxima and sums of exp. What softmax and cross-entropy have
// in common.
#pragma once

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kTaskElements = 8192, kGroupElements = 2048;

// Calls body(outer, first, lines) for tiles of neighbouring lines, whole vectors but for the last.
template <class T, class Body>
void for_each_tile(int64_t outer, int64_t axis, int64_t inner, const Body& body,
                   int64_t elements = kTaskElements) {
  const int64_t lines = ceil_div(elements, max_of<int64_t>(axis, 1) * kLanes<T>) * kLanes<T>;
  const int64_t per_outer = ceil_div(inner, lines);
  parallel_for(outer * per_outer, [&](int64_t task) {
    const int64_t first = task % per_outer * lines;
    body(task / per_outer, first, min_of(lines, inner - first));
  });
}
// Calls body(first, count) for groups of lines that L1 holds: at most a vector of short ones, one
// of the others. Large tensors have larger tasks, as the lines after a group are asked for early.
template <class T, class Body>
void for_each_lines(int64_t lines, int64_t axis, const Body& body) {
  const int64_t several = kGroupElements / max_of<int64_t>(1, axis);
  const int64_t group = max_of<int64_t>(1, min_of<int64_t>(several, kLanes<T>));
  const bool large = is_streamed<T>(lines * axis);
  const int64_t elements = large ? 8 * kTaskElements : kTaskElements;
  const int64_t grain = ceil_div(elements, max_of<int64_t>(1, axis) * group) * group;
  parallel_ranges(lines, grain, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; line += group) body(line, min_of(group, end - line));
    finish_streams(large);
  });
}
// The same one by one.
template <class T, class Body>
void for_each_line(int64_t lines, int64_t axis, const Body& body) {
  for_each_lines<T>(lines, axis, [&](int64_t first, int64_t count) {
    for (int64_t line = first; line < first + count; ++line) body(line);
  });
}

template <class T>
LAMINA_INLINE Vec<T> load_some(const T* p, int64_t count, T fill = T(0)) {
  return count == kLanes<T> ? load(p) : load_first(p, count, fill);
}
template <class T>
LAMINA_INLINE void store_some(T* p, int64_t count, Vec<T> v) {
  if (count == kLanes<T>)
    store(p, v);
  else
    store_first(p, count, v);
}

template <class T, int WIDTH = kLanes<T> / 2>
LAMINA_INLINE T largest_lane(Vec<T> v) {
  const Vec<T> other = lanes_ahead<T, WIDTH>(v);
  v = other > v ? other : v;
  if constexpr (WIDTH == 1)
    return v[0];
  else
    return largest_lane<T, WIDTH / 2>(v);
}
template <class T>
T line_maximum(const T* x, int64_t size) {
  Vec<T> top[4];
  for (Vec<T>& chain : top) chain = broadcast<T>(-T(__builtin_inf()));
  int64_t j = 0;
  for (; j + 4 * kLanes<T> <= size; j += 4 * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const Vec<T> v = load(x + j + c * kLanes<T>);
      top[c] = v > top[c] ? v : top[c];
    }
  for (; j < size; j += kLanes<T>) {
    const Vec<T> v = load_first(x + j, size - j, -T(__builtin_inf()));
    top[0] = v > top[0] ? v : top[0];
  }
#pragma GCC unroll 4
  for (int c = 1; c < 4; ++c) top[0] = top[c] > top[0] ? top[c] : top[0];
  return largest_lane<T>(top[0]);
}

// e^x as a term of a sum; x < 88. float: it errs by little beside the sum, for less than exp takes:
// a polynomial of 2^r.
template <class T>
LAMINA_INLINE Vec<T> exp_term(Vec<T> x) {
  if constexpr (sizeof(T) != 4) return exp_nonpositive<T>(x);
  constexpr double kLn2 = 0.69314718055994530942;
  constexpr T kSeries[] = {T(1),
                           T(0.999999702 * kLn2),
                           T(0.499991506 * kLn2 * kLn2),
                           T(0.166676357 * kLn2 * kLn2 * kLn2),
                           T(0.0418979302 * kLn2 * kLn2 * kLn2 * kLn2),
                           T(0.00829031505 * kLn2 * kLn2 * kLn2 * kLn2 * kLn2)};
  const Vec<T> t = at_least<T>(x, Real<T>::kExpMin) * T(1.44269504088896340736);
  const Vec<T> shifted = t + Real<T>::kRound;
  const Whole<T> n = {shifted - Real<T>::kRound,
                      bits<T>(shifted) - bits<T>(broadcast<T>(Real<T>::kRound))};
  const Vec<T> r = t - n.value;
  return scaled<T>(polynomial<T>(kSeries, r), n);
}
// Sum of exp(x - top), of which no x is far above top, and the largest x. Asks for the elements
// `ahead` of x.
template <class T>
LAMINA_INLINE T line_sum(const T* x, int64_t size, T top, int64_t ahead, T& largest) {
  Vec<T> sums[2] = {}, most[2];
  most[0] = most[1] = broadcast<T>(-T(__builtin_inf()));
  auto add = [&](int c, Vec<T> v) {
    most[c] = v > most[c] ? v : most[c];
    sums[c] += exp_term<T>(v - top);
  };
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= size; j += 2 * kLanes<T>)
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      __builtin_prefetch(x + j + c * kLanes<T> + ahead);
      add(c, load(x + j + c * kLanes<T>));
    }
  for (; j < size; j += kLanes<T>) add(0, load_first(x + j, size - j, -T(__builtin_inf())));
  largest = largest_lane<T>(most[1] > most[0] ? most[1] : most[0]);
  return sum_lanes<T>(sums[0] + sums[1]);
}
// Sum of exp(x - top), whose terms are kept. Asks for elements from `wanted` on, one for every
// Pace.
template <int Pace, class T>
LAMINA_INLINE T line_powers(const T* x, int64_t size, T top, const T* wanted, T* kept) {
  auto power = [&](int64_t j, int64_t count) {
    const Vec<T> e = exp_nonpositive<T>(load_some(x + j, count) - top);
    store_some(kept + j, count, e);
    return e;
  };
  Vec<T> sums[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= size; j += 2 * kLanes<T>)
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      __builtin_prefetch(wanted + (j + c * kLanes<T>) / Pace);
      sums[c] += power(j + c * kLanes<T>, int64_t{kLanes<T>});
    }
  for (; j < size; j += kLanes<T>) {
    const int64_t count = min_of<int64_t>(kLanes<T>, size - j);
    const Vec<T> e = power(j, count);
    sums[0] += lane_numbers<T>() < static_cast<LaneInteger<T>>(count) ? e : Vec<T>{};
  }
  return sum_lanes<T>(sums[0] + sums[1]);
}

// Maximum and sum of exp(x - maximum) of a long line, which is read once: block by block, each
// about the maximum of those before it, or once more where its own lies far above that.
template <class T>
T line_statistics(const T* x, int64_t size, T& top) {
  constexpr T kFar = 60;
  top = line_maximum(x, min_of(kGroupElements, size));
  double sum = 0;
  for (int64_t begin = 0; begin < size; begin += kGroupElements) {
    const int64_t count = min_of(kGroupElements, size - begin);
    // Nothing but -Inf as yet: it adds 0, and NaN itself.
    const T shift = top == -T(__builtin_inf()) ? T(0) : top;
    T largest;
    T some = line_sum(x + begin, count, shift, kGroupElements, largest);
    const bool far = largest > top + kFar;
    if (far)
      some = line_sum(x + begin, count, largest, 0, largest);
    else
      sum += double(some);
    if (largest > top) {
      sum *= exp_nonpositive<double>(broadcast(double(top) - double(largest)))[0];
      top = largest;
    }
    if (far) sum += double(some);
  }
  return T(sum);
}

// Rows of whole vectors in scratch, where that does not multiply the memory of long lines.
template <class T>
LAMINA_INLINE int64_t tile_width(int64_t axis, int64_t lines) {
  return axis < 65536 ? ceil_div(lines, kLanes<T>) * kLanes<T> : lines;
}

// `lines` neighbouring lines of logits in scratch, with their maxima and sums of exp. Vectors may
// read and write beyond the last line: what comes after it is written later, or is room.
template <class T>
class Tile {
 public:
  Tile(const T* x, int64_t axis, int64_t inner, int64_t lines, bool keep_exp)
      : lines_(lines),
        width_(tile_width<T>(axis, lines)),
        value_(axis * width_ + kLanes<T>),
        top_(lines + kLanes<T>),
        sum_(lines + kLanes<T>) {
    auto copy = [&](int64_t first, int64_t rows) {
      for_each_vector([&](int64_t i, int64_t count) {
        Vec<T> top = first == 0 ? broadcast<T>(-T(__builtin_inf())) : load(&top_[i]);
        for (int64_t j = first; j < first + rows; ++j) {
          const Vec<T> v = load_some(x + j * inner + i, count);
          store(&value_[j * width_ + i], v);
          top = v > top ? v : top;
        }
        store(&top_[i], top);
      });
    };
    int64_t row = 0;
    for (; row + 4 <= axis; row += 4) copy(row, 4);
    if (row < axis) copy(row, axis - row);
    for (int64_t j = 0; j < axis; ++j) prefetch_line(x + j * inner + lines, lines);
    for_each_vector([&](int64_t i, int64_t) {
      const Vec<T> top = load(&top_[i]);
      Vec<T> sum = {};
      for (int64_t j = 0; j < axis; ++j) {
        T* place = &value_[j * width_ + i];
        const Vec<T> e = exp_nonpositive<T>(load(place) - top);
        sum += e;
        if (keep_exp) store_first(place, width_ - i, e);
      }
      store(&sum_[i], sum);
    });
  }

  // Calls body(i, count) for the vectors of a row.
  template <class Body>
  LAMINA_INLINE void for_each_vector(const Body& body) const {
    along_line<T>(lines_, body);
  }
  Vec<T> value(int64_t j, int64_t i) const { return load(&value_[j * width_ + i]); }
  T logit(int64_t j, int64_t i) const { return value_[j * width_ + i]; }
  T* top() const { return top_.get(); }
  T* sum() const { return sum_.get(); }

 private:
  int64_t lines_, width_;
  Scratch<T> value_, top_, sum_;
};

LAMINA_CPU_NAMESPACE_END
