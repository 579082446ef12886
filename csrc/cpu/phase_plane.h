// A zero-padded copy of input planes in which every tap of a convolution is one contiguous shift.
//
// Rows and columns are split by their remainder modulo the stride (those that taps fall on), so
// that the output position (row, column), flattened to q = row * pitch + column, reads tap (r1, r2)
// at q + offset(r1, r2) whatever stride, dilation and padding. Columns from out[2] to pitch give
// values nobody stores.
//
//   [depth tap][row remainder][column remainder][height][pitch]
#pragma once

#include <type_traits>

#include "cpu/simd.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

struct PhasePlane {
  int64_t remainders[2];  // rows, columns: how many remainders the taps fall on
  int64_t height, pitch;  // of one remainder
  int64_t size;           // elements of one channel, all depth taps
  int64_t slack;          // positions read beyond the last plane, for columns nobody stores

  // For `rows` output rows of the convolution.
  LAMINA_INLINE PhasePlane(const ops::ConvShape& s, int64_t rows) {
    for (int axis = 1; axis < 3; ++axis)
      remainders[axis - 1] = min_of(s.kernel[axis], period(s, axis));
    height = rows + extra(s, 1);
    slack = extra(s, 2);
    pitch = s.out[2] + slack;
    size = s.kernel[0] * remainders[0] * remainders[1] * height * pitch;
  }

  // Taps this far apart share a remainder.
  LAMINA_INLINE static int64_t period(const ops::ConvShape& s, int axis) {
    return s.stride[axis] / greatest_divisor(s.stride[axis], s.dilation[axis]);
  }

  // Rows or columns beyond the output's that the taps reach; a phase of a gradient may have no tap.
  LAMINA_INLINE static int64_t extra(const ops::ConvShape& s, int axis) {
    return max_of<int64_t>(s.kernel[axis] - 1, 0) * s.dilation[axis] / s.stride[axis];
  }

  LAMINA_INLINE int64_t offset(const ops::ConvShape& s, int64_t r0, int64_t r1, int64_t r2) const {
    const int64_t which =
        (r0 * remainders[0] + r1 % period(s, 1)) * remainders[1] + r2 % period(s, 2);
    return (which * height + r1 * s.dilation[1] / s.stride[1]) * pitch +
           r2 * s.dilation[2] / s.stride[2];
  }
};

// Where the rows of a remainder of a plane come from: [begin, end) lie in x, `step` apart.
template <class T>
struct PlaneRows {
  const T* x;  // row 0, or where it would lie
  int64_t step, begin = 0, end = 0;

  // Remainder a, for output rows from `row` on; plane i0 of a channel may be outside.
  LAMINA_INLINE PlaneRows(const ops::ConvShape& s, const PhasePlane& plane, const T* channel,
                          int64_t i0, int64_t row, int64_t a)
      : step(s.stride[1] * s.in[2]) {
    const int64_t i1 = row * s.stride[1] + a * s.dilation[1] % s.stride[1] - s.pad[1];
    x = channel + (i0 * s.in[1] + i1) * s.in[2];
    if (i0 < 0 || i0 >= s.in[0]) return;
    begin = i1 < 0 ? min_of(ceil_div(-i1, s.stride[1]), plane.height) : 0;
    end = i1 < s.in[1] ? min_of(ceil_div(s.in[1] - i1, s.stride[1]), plane.height) : 0;
    end = max_of(begin, end);
  }
  // Row h or null.
  LAMINA_INLINE const T* at(int64_t h) const {
    return h >= begin && h < end ? x + h * step : nullptr;
  }
};

// Rows of a channel whose columns fall on Step remainders, all at a time: remainder e goes to
// to[e], unless that is null.
template <class T, int Step>
static void split_rows(const ops::ConvShape& s, const PhasePlane& plane, const PlaneRows<T>& from,
                       T* const (&to)[Step]) {
  for (int64_t h = 0; h < plane.height; ++h) {
    const T* source = from.at(h);
    for (int64_t j = 0; j < plane.pitch; j += kLanes<T>) {
      Vec<T> columns[Step], split[Step];
      const int64_t at = j * Step - s.pad[2], inside = s.in[2] - at;
      for (int i = 0; i < Step; ++i)
        __builtin_prefetch(source + at + i * kLanes<T> + kPrefetchBytes / sizeof(T));
      if (source && at >= 0 && inside >= Step * kLanes<T>)
        for (int i = 0; i < Step; ++i) columns[i] = load(source + at + i * kLanes<T>);
      else
        for (int i = 0; i < Step; ++i)
          columns[i] = source ? load_lanes(source + at + i * kLanes<T>, -at - i * kLanes<T>,
                                           inside - i * kLanes<T>)
                              : Vec<T>{};
      split_columns<T, Step>(columns, split);
      for (int e = 0; e < Step; ++e)
        if (to[e]) store_first(to[e] + h * plane.pitch + j, plane.pitch - j, split[e]);
    }
  }
}

// Remainder b of the columns.
template <class T>
static void fill_remainder(const ops::ConvShape& s, const PhasePlane& plane, int64_t b,
                           const PlaneRows<T>& from, T* rows) {
  // Column j reads i2 = j * stride - low.
  const int64_t low = s.pad[2] - b * s.dilation[2] % s.stride[2], end = s.in[2] + low;
  const int64_t first = min_of(low > 0 ? ceil_div(low, s.stride[2]) : int64_t{0}, plane.pitch);
  const int64_t last =
      max_of(first, min_of(end > 0 ? ceil_div(end, s.stride[2]) : int64_t{0}, plane.pitch));
  if (s.stride[2] == 1) {  // last columns first: whole vectors write zeros beyond the row
    for (int64_t j = (plane.pitch - 1) / kLanes<T> * kLanes<T>; j >= 0; j -= kLanes<T>) {
      const Lanes<T> lanes(first - j, last - j);
      const T* source = from.x + from.begin * from.step + (j - low);
      T* to = rows + j;
      int64_t h = 0;
      for (; h < from.begin; ++h, to += plane.pitch) store(to, Vec<T>{});
      for (; h < from.end; ++h, to += plane.pitch, source += from.step) {
        __builtin_prefetch(source + kPrefetchBytes / sizeof(T));
        store(to, lanes.load(source));
      }
      for (; h < plane.height; ++h, to += plane.pitch) store(to, Vec<T>{});
    }
    return;
  }
  for (int64_t h = 0; h < plane.height; ++h, rows += plane.pitch) {
    const T* source = from.at(h);
    const int64_t begin = source ? first : plane.pitch, stop = source ? last : plane.pitch;
    for (int64_t j = 0; j < begin; ++j) rows[j] = 0;
    for (int64_t j = begin; j < stop; ++j) rows[j] = source[j * s.stride[2] - low];
    for (int64_t j = stop; j < plane.pitch; ++j) rows[j] = 0;
  }
}

// The taps along an axis that meet x and not its padding.
struct MetTaps {
  int64_t first = 0, last;

  LAMINA_INLINE MetTaps(const ops::ConvShape& s, int axis) : last(s.kernel[axis]) {}  // all
  LAMINA_INLINE MetTaps(const ops::ConvShape& s, int axis, int64_t output) : MetTaps(s, axis) {
    const int64_t i = output * s.stride[axis] - s.pad[axis];
    while (first < last && i + first * s.dilation[axis] < 0) ++first;
    while (first < last && i + (last - 1) * s.dilation[axis] >= s.in[axis]) --last;
  }
  LAMINA_INLINE bool operator==(const MetTaps& other) const {
    return first == other.first && last == other.last;
  }
  LAMINA_INLINE int64_t count() const { return last - first; }
};

// Fills one channel's plane for output depth o0 and output rows from `row`, but for planes of taps
// that are not `met`, and may write zeros to a vector behind it; x [in] is the channel.
template <class T>
static void fill_phase_plane(const ops::ConvShape& s, const PhasePlane& plane, const T* x,
                             int64_t o0, int64_t row, MetTaps met, T* rows) {
  rows += met.first * plane.remainders[0] * plane.remainders[1] * plane.height * plane.pitch;
  for (int64_t r0 = met.first; r0 < met.last; ++r0) {
    const int64_t i0 = o0 * s.stride[0] - s.pad[0] + r0 * s.dilation[0];
    for (int64_t a = 0; a < plane.remainders[0]; ++a) {
      const PlaneRows<T> from(s, plane, x, i0, row, a);
      const auto split = [&](auto step) {
        T* to[step] = {};
        for (int64_t b = 0; b < plane.remainders[1]; ++b, rows += plane.height * plane.pitch)
          to[b * s.dilation[2] % step] = rows;
        split_rows<T, step>(s, plane, from, to);
      };
      if (s.stride[2] == 2)
        split(std::integral_constant<int, 2>{});
      else if (s.stride[2] == 4)
        split(std::integral_constant<int, 4>{});
      else
        for (int64_t b = 0; b < plane.remainders[1]; ++b, rows += plane.height * plane.pitch)
          fill_remainder(s, plane, b, from, rows);
    }
  }
}

LAMINA_CPU_NAMESPACE_END
