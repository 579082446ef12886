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

// Rows of a channel whose columns fall on Step remainders, all at a time. row_of(h): row h of x or
// null; remainder e of its columns goes to to[e], unless that is null.
template <class T, int Step, class RowOf>
static void split_rows(const ops::ConvShape& s, const PhasePlane& plane, const RowOf& row_of,
                       T* const (&to)[Step]) {
  for (int64_t h = 0; h < plane.height; ++h) {
    const T* source = row_of(h);
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
template <class T, class RowOf>
static void fill_remainder(const ops::ConvShape& s, const PhasePlane& plane, int64_t b,
                           const RowOf& row_of, T* rows) {
  // Column j reads i2 = j * stride - low.
  const int64_t low = s.pad[2] - b * s.dilation[2] % s.stride[2], end = s.in[2] + low;
  const int64_t first = min_of(low > 0 ? ceil_div(low, s.stride[2]) : int64_t{0}, plane.pitch);
  const int64_t last =
      max_of(first, min_of(end > 0 ? ceil_div(end, s.stride[2]) : int64_t{0}, plane.pitch));
  if (s.stride[2] == 1) {  // last columns first: whole vectors write zeros beyond the row
    for (int64_t j = (plane.pitch - 1) / kLanes<T> * kLanes<T>; j >= 0; j -= kLanes<T>) {
      const Lanes<T> lanes(first - j, last - j);
      for (int64_t h = 0; h < plane.height; ++h) {
        const T* source = row_of(h);
        if (source) __builtin_prefetch(source + j + kPrefetchBytes / sizeof(T));
        store(rows + h * plane.pitch + j, source ? lanes.load(source + j - low) : Vec<T>{});
      }
    }
    return;
  }
  for (int64_t h = 0; h < plane.height; ++h, rows += plane.pitch) {
    const T* source = row_of(h);
    const int64_t begin = source ? first : plane.pitch, stop = source ? last : plane.pitch;
    for (int64_t j = 0; j < begin; ++j) rows[j] = 0;
    for (int64_t j = begin; j < stop; ++j) rows[j] = source[j * s.stride[2] - low];
    for (int64_t j = stop; j < plane.pitch; ++j) rows[j] = 0;
  }
}

// Fills one channel's plane for output depth o0 and output rows from `row`, and may write zeros to
// a vector behind it; x [in] is the channel.
template <class T>
static void fill_phase_plane(const ops::ConvShape& s, const PhasePlane& plane, const T* x,
                             int64_t o0, int64_t row, T* rows) {
  for (int64_t r0 = 0; r0 < s.kernel[0]; ++r0) {
    const int64_t i0 = o0 * s.stride[0] - s.pad[0] + r0 * s.dilation[0];
    for (int64_t a = 0; a < plane.remainders[0]; ++a) {
      const auto row_of = [&](int64_t h) -> const T* {  // null if outside
        const int64_t i1 = (row + h) * s.stride[1] + a * s.dilation[1] % s.stride[1] - s.pad[1];
        const bool inside = i0 >= 0 && i0 < s.in[0] && i1 >= 0 && i1 < s.in[1];
        return inside ? x + (i0 * s.in[1] + i1) * s.in[2] : nullptr;
      };
      const auto split = [&](auto step) {
        T* to[step] = {};
        for (int64_t b = 0; b < plane.remainders[1]; ++b, rows += plane.height * plane.pitch)
          to[b * s.dilation[2] % step] = rows;
        split_rows<T, step>(s, plane, row_of, to);
      };
      if (s.stride[2] == 2)
        split(std::integral_constant<int, 2>{});
      else if (s.stride[2] == 4)
        split(std::integral_constant<int, 4>{});
      else
        for (int64_t b = 0; b < plane.remainders[1]; ++b, rows += plane.height * plane.pitch)
          fill_remainder(s, plane, b, row_of, rows);
    }
  }
}

LAMINA_CPU_NAMESPACE_END
