// Gradients of pools gathered by the task that owns rows of the input: what max and average pools
// share.
#pragma once

#include "cpu/pool_rows.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PoolArgs;

// Input columns STRIDE * j + phase lie in the windows of outputs j - shift for the phase's shifts.
struct Phases {
  int64_t count[2] = {0, 0}, shift[2][RegularColumns::kMaxTaps];
  int64_t smallest = 0, largest = 0;

  Phases(const RegularColumns& columns, int64_t step) {
    for (int64_t t = columns.taps - 1; t >= 0; --t) {
      const int64_t column = columns.base + t * step, phase = column & (columns.stride - 1);
      const int64_t own = (column - phase) / columns.stride;
      shift[phase][count[phase]++] = own;
      smallest = min_of(smallest, own), largest = max_of(largest, own);
    }
  }
};

// The rows of outputs over a run of input rows of one plane, as a task stages them.
struct Segment {
  int64_t plane, begin, end;           // rows of the input
  int64_t begin0, end0, begin1, end1;  // rows of outputs over them
  int64_t staged;                      // rows staged before

  int64_t rows1() const { return end1 - begin1; }
  int64_t count() const { return (end0 - begin0) * rows1(); }
  int64_t row(int64_t o0, int64_t o1) const {
    return staged + (o0 - begin0) * rows1() + o1 - begin1;
  }
};

// Calls body(segment) for the planes that hold the input rows [begin, end) of all planes.
template <class Body>
LAMINA_INLINE int64_t for_each_segment(const PoolAxis* axis, int64_t begin, int64_t end,
                                       const Body& body) {
  const int64_t in1 = axis[1].in, rows = axis[0].in * in1;
  int64_t staged = 0;
  while (begin < end) {
    Segment s;
    s.plane = begin / rows, s.begin = begin % rows, s.end = min_of(rows, s.begin + end - begin);
    const int64_t a = s.begin / in1, b = (s.end - 1) / in1;
    s.begin0 = axis[0].first[a], s.end0 = axis[0].last[b];
    s.begin1 = a == b ? axis[1].first[s.begin % in1] : 0;
    s.end1 = a == b ? axis[1].last[(s.end - 1) % in1] : axis[1].out;
    s.staged = staged;
    body(s);
    staged += s.count();
    begin += s.end - s.begin;
  }
  return staged;
}

// Rows of the input that are used together; whole planes where they are small.
LAMINA_INLINE int64_t rows_of_block(int64_t rows, int64_t width) {
  const int64_t some = rows_together(width);
  return some > rows ? some / rows * rows : some;
}

// What was put together in a cache.
template <class T>
static void copy_past_caches(const T* from, int64_t size, T* to) {
  write_line(to, size, true, [&](int64_t i, int64_t count) { return load_first(from + i, count); });
}

// Two phases of a row side by side.
template <class T>
LAMINA_INLINE void store_phases(T* to, int64_t count, Vec<T> even, Vec<T> odd,
                                bool streamed = false) {
  store_result(to, count, interleave<T, false>(even, odd), streamed);
  if (count > kLanes<T>)
    store_result(to + kLanes<T>, count - kLanes<T>, interleave<T, true>(even, odd), streamed);
}

// Two vectors of indices as one of lanes: their lower halves.
template <class T>
LAMINA_INLINE Mask<T> lower_halves(Vec<double> low, Vec<double> high) {
  return reinterpret_cast<Mask<T>>(
      every_other<T, false>(reinterpret_cast<Vec<T>>(low), reinterpret_cast<Vec<T>>(high)));
}

// A vector of indices; those before lane `from` and from `to` on name no place.
template <class T>
LAMINA_INLINE Mask<T> lane_indices(const int64_t* index, int64_t from, int64_t to) {
  constexpr int kHalf = kLanes<double>;
  const double nowhere = __builtin_bit_cast(double, int64_t{-1});
  const double* at = reinterpret_cast<const double*>(index);
  auto part = [&](int lane) __attribute__((always_inline)) {
    return from <= 0 && to >= lane + kHalf ? load(at + lane)
                                           : load_lanes(at + lane, from - lane, to - lane, nowhere);
  };
  const Vec<double> low = part(0);
  if constexpr (sizeof(T) == 8) return reinterpret_cast<Mask<T>>(low);
  return lower_halves<T>(low, part(kHalf));
}

// Windows of two by two that tile the plane: an output meets its inputs in registers.
//
// Windows of two columns that follow each other from the first on, and rows of windows that do not
// overlap.
static bool pairs_tile(const PoolAxis* axis, const RegularColumns& columns) {
  if (!columns.holds || columns.stride != 2 || columns.taps != 2 || columns.base != 0) return false;
  if (axis[2].step != 1 || 2 * axis[2].out > axis[2].in) return false;
  if (axis[0].out < 1 || axis[1].out < 1) return false;
  for (int a = 0; a < 2; ++a)
    for (int64_t o = 0; o < axis[a].out; ++o) {
      const int64_t next = o + 1 < axis[a].out ? axis[a].start[o + 1] : axis[a].in;
      if (axis[a].step != 1 || axis[a].start[o] + axis[a].count[o] > next) return false;
    }
  return true;
}

// Calls body(row of the input, whether the window of (o0, o1) holds it) from that window's first
// row to the next window's; those before the first window are the first one's.
template <class Body>
LAMINA_INLINE void for_each_own_row(const PoolAxis* axis, int64_t o0, int64_t o1,
                                    const Body& body) {
  int64_t begin[2], end[2];
  for (int a = 0; a < 2; ++a) {
    const int64_t o = a == 0 ? o0 : o1;
    begin[a] = o > 0 ? axis[a].start[o] : 0;
    end[a] = o + 1 < axis[a].out ? axis[a].start[o + 1] : axis[a].in;
  }
  for (int64_t i0 = begin[0]; i0 < end[0]; ++i0)
    for (int64_t i1 = begin[1]; i1 < end[1]; ++i1)
      body(i0 * axis[1].in + i1, holds_input(axis[0], o0, i0) && holds_input(axis[1], o1, i1));
}

template <class T, bool MAX>
static void gather_pairs(const PoolArgs<T>& args) {
  const PoolAxis* axis = args.axis;
  const int64_t in = axis[2].in, out = axis[2].out;
  const bool streamed = is_streamed<T>(args.planes * args.in_size());
  for_each_row_group(
      args.planes, axis[0].out, axis[1].out, 2 * in, streamed, [&](const auto& rows) {
        Scratch<T> divisor(MAX ? 0 : out);
        for (int64_t o = 0; o < out && !MAX; ++o) divisor[o] = T(axis[2].divisor[o]);
        rows([&](int64_t plane, int64_t o0, int64_t o1) {
          T* grad_x = args.result + plane * args.in_size();
          const int64_t from = plane * args.out_size() + (o0 * axis[1].out + o1) * out;
          const T divide = MAX ? T(1) : T(axis[0].divisor[o0] * axis[1].divisor[o1]);
          for (int64_t o = 0; 2 * o < in; o += kLanes<T>) {
            Vec<T> grad = load_first(args.grad_y + from + o, out - o);
            Mask<T> index = {};
            if constexpr (MAX)
              index = lane_indices<T>(args.index + from + o, 0, out - o);
            else
              grad /= divide * load_first(&divisor[o], out - o, T(1));
            for_each_own_row(axis, o0, o1, [&](int64_t row, bool inside) {
              Vec<T> even = {}, odd = {};
              if (inside && MAX) {
                const Mask<T> place =
                    2 * lane_numbers<T>() + static_cast<LaneInteger<T>>(row * in + 2 * o);
                even = index == place ? grad : even, odd = index == place + 1 ? grad : odd;
              } else if (inside) {
                even = odd = grad;
              }
              store_phases(grad_x + row * in + 2 * o, in - 2 * o, even, odd, streamed);
            });
          }
        });
      });
}

LAMINA_CPU_NAMESPACE_END
