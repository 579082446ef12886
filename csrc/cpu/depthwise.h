// Depthwise convolution row by row: which rows and columns meet which taps, and the vectors of x.
//
// Rows of y are taken in classes in which neighbours are ST rows of x apart, and so are tap and tap
// (1 row): the rows congruent modulo the dilation, and for an input gradient those of one phase of
// the stride (shared/conv_phase.h). Position j of a class and tap t meet in row
// x_first + x_step * (ST * j + t) of x; j is row y_first + y_step * j of y.
#pragma once

#include <type_traits>

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int kRowBlock = 8;                 // most rows of a tile
inline constexpr int64_t kDepthwiseTask = 1 << 18;  // products that are worth a task

struct RowClass {
  int64_t count;  // rows of y
  int64_t y_first, y_step;
  int64_t x_first, x_step;
  int64_t taps;                 // along the rows
  int64_t filter, filter_step;  // rows of the filter: tap t is row filter + t * filter_step
};
// Column l of a tile and tap t meet in column first + t * step of x, plus ST * l.
struct ColumnClass {
  int64_t taps;
  int64_t first, step;
  int64_t filter, filter_step;
};

// Rows [class, class + dilation, ...) of a convolution without row stride, or one with stride and
// no dilation.
LAMINA_INLINE RowClass row_class(const ops::ConvShape& s, int64_t index) {
  const int64_t spread = s.dilation[1];
  const int64_t count = index < s.out[1] ? (s.out[1] - index - 1) / spread + 1 : 0;
  return {count, index, spread, index - s.pad[1], spread, s.kernel[1], 0, 1};
}
LAMINA_INLINE ColumnClass column_class(const ops::ConvShape& s) {
  return {s.kernel[2], -s.pad[2], s.dilation[2], 0, 1};
}
LAMINA_INLINE int64_t row_classes(const ops::ConvShape& s) {
  return min_of(s.dilation[1], s.out[1]);
}

// Whether the rows of x fall into the pattern above with ST == stride.
LAMINA_INLINE bool regular_rows(const ops::ConvShape& s) {
  if (s.stride[2] > 2) return false;
  return s.out[1] == 1 || (s.stride[1] == s.stride[2] && (s.stride[1] == 1 || s.dilation[1] == 1));
}

// Rows a tile: the block that wastes least.
LAMINA_INLINE int64_t rows_per_tile(int64_t count) {
  if (count == 1) return 1;
  if (count <= 4) return 4;
  return ceil_div(count, 7) * 7 < ceil_div(count, kRowBlock) * kRowBlock ? 7 : kRowBlock;
}

// body(constant) for the run of vectors of a row alone that holds `vectors` of them, an even number
// up to what the registers keep; the number. Where runs meet edges, shorter ones have fewer that
// do.
inline constexpr int kEdgedRun = 8;
inline constexpr int kMostRun = kVectorBytes == 64 ? 12 : 8;
template <int RUN = kMostRun, class Body>
LAMINA_INLINE int64_t with_run(int64_t vectors, const Body& body) {
  if constexpr (RUN > 2)
    if (vectors <= RUN - 2) return with_run<RUN - 2>(vectors, body);
  body(std::integral_constant<int, RUN>());
  return RUN;
}

// A row of x with zeros around it, so that no tap of a run leaves it: x begins at `lead`, and of it
// the first `columns` are met.
struct RowFrame {
  int64_t lead, columns, width;
};
inline constexpr int kFramedTaps = 5;  // from so many taps on a copy of the row pays
template <class T, int ST, int P>
LAMINA_INLINE RowFrame row_frame(const ColumnClass* phases, int64_t in, int64_t out) {
  int64_t first = 0, last = 0;
  for (int phase = 0; phase < P; ++phase) {
    const ColumnClass& columns = phases[phase];
    const int64_t vectors = ceil_div(out, P * kLanes<T>) + 1;  // runs are of even length
    first = min_of(first, columns.first);
    last =
        max_of(last, columns.first + (columns.taps - 1) * columns.step + ST * vectors * kLanes<T>);
  }
  return {-first, min_of(in, last), last - first};
}

// The rows of x that `rows` neighbours of a class from j on meet; those outside read as `zeros`.
template <class T>
LAMINA_INLINE void find_rows(const RowClass& rows, int64_t j, int64_t count, int stride,
                             const T* plane, const int64_t in[2], const T* zeros,
                             const T** pointers) {
  int64_t row = rows.x_first + rows.x_step * stride * j;
  for (int64_t i = 0; i < count; ++i, row += rows.x_step)
    pointers[i] = row >= 0 && row < in[0] ? plane + row * in[1] : zeros;
}

// Columns ST * l of the row at p for the lanes l; elements outside [from, to) read as zero.
template <class T, int ST>
LAMINA_INLINE Vec<T> load_columns(const T* p, int64_t from, int64_t to) {
  if constexpr (ST == 1)
    return load_lanes(p, from, to);
  else
    return every_other<T, false>(load_lanes(p, from, to),
                                 load_lanes(p + kLanes<T>, from - kLanes<T>, to - kLanes<T>));
}
template <class T, int ST>
LAMINA_INLINE Vec<T> load_columns(const T* p) {
  if constexpr (ST == 1)
    return load(p);
  else
    return every_other<T, false>(load(p), load(p + kLanes<T>));
}

// body(load): load(p) with masks where lanes fall outside [from, to). Masks cost nothing with
// AVX-512.
template <class T, int ST, class Body>
LAMINA_INLINE void with_loads(int64_t from, int64_t to, const Body& body) {
  if constexpr (kVectorBytes < 64)
    if (from <= 0 && to >= ST * kLanes<T>)
      return body([](const T* p) { return load_columns<T, ST>(p); });
  if (from < ST * kLanes<T> && to > 0)
    body([from, to](const T* p) { return load_columns<T, ST>(p, from, to); });
}

// body(constant) for the greatest of 7, 5, 3, 2, 1 rows of taps that is not above `left`: what is
// kept in registers beside the sums.
template <int N>
using TapRows = std::integral_constant<int, N>;
template <class Body>
LAMINA_INLINE int64_t with_tap_rows(int64_t left, const Body& body) {
  if (kVectorBytes == 64 && left >= 7) return body(TapRows<kVectorBytes == 64 ? 7 : 1>()), 7;
  if (left >= 5) return body(TapRows<5>()), 5;
  if (left >= 3) return body(TapRows<3>()), 3;
  if (left == 2) return body(TapRows<2>()), 2;
  return body(TapRows<1>()), 1;
}

LAMINA_CPU_NAMESPACE_END
