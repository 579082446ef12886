// What the pools share: rows of windows, and columns whose windows lie at one distance.
#pragma once

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/pool.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PoolAxis;

inline constexpr int64_t kPoolTask = 4096;  // elements: their rows stay in L1 between uses
inline constexpr int64_t kMostBlocks = 16, kManyTasks = 128;

// Calls body(begin, end) over [0, items) in ranges of `grain` items. Of a large tensor a task takes
// some: the hardware sees longer runs of memory coming, and what is written past the caches is
// waited for less often.
template <class Body>
LAMINA_INLINE void parallel_blocks(int64_t items, int64_t grain, bool large, const Body& body) {
  const int64_t many = min_of(items / grain / kManyTasks, kMostBlocks);
  const int64_t task = large && many > 1 ? many * grain : grain;
  parallel_ranges(items, task, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += grain) body(at, min_of(at + grain, end));
    finish_streams(large);
  });
}

template <class E>
static void fill(E* to, int64_t count, E value) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// Rows of `width` elements in a block.
LAMINA_INLINE int64_t rows_together(int64_t width) {
  return max_of<int64_t>(1, kPoolTask / max_of<int64_t>(1, width));
}

// Calls group(rows) for blocks of rows, where rows(body) calls body(plane, a, b) for each.
template <class Group>
LAMINA_INLINE void for_each_row_group(int64_t planes, int64_t rows0, int64_t rows1, int64_t width,
                                      bool large, const Group& group) {
  parallel_blocks(
      planes * rows0 * rows1, rows_together(width), large, [&](int64_t begin, int64_t end) {
        group([&](const auto& body) {
          int64_t plane = begin / (rows0 * rows1), a = begin / rows1 % rows0, b = begin % rows1;
          for (int64_t row = begin; row < end; ++row) {
            body(plane, a, b);
            if (++b < rows1) continue;
            b = 0;
            if (++a == rows0) a = 0, ++plane;
          }
        });
      });
}

// Whether the input goes past the caches.
template <class T>
LAMINA_INLINE bool large_input(const ops::PoolArgs<T>& args) {
  return is_streamed<T>(args.planes * args.in_size());
}

// Whether offsets in a plane fit a lane.
template <class T>
LAMINA_INLINE bool small_plane(const ops::PoolArgs<T>& args) {
  return sizeof(T) == 8 || args.in_size() < (int64_t{1} << 30);
}

// Whether all windows have one divisor.
LAMINA_INLINE bool one_divisor(const PoolAxis* axis) {
  for (int a = 0; a < 3; ++a) {
    if (axis[a].out < 1) return false;
    for (int64_t o = 0; o < axis[a].out; ++o)
      if (axis[a].divisor[o] != axis[a].divisor[0]) return false;
  }
  return true;
}

// Where the row of x at taps (t0, t1) of the window of output (o0, o1) starts in its plane.
LAMINA_INLINE int64_t window_row(const PoolAxis* axis, int64_t o0, int64_t o1, int64_t t0,
                                 int64_t t1) {
  const int64_t depth = axis[0].start[o0] + t0 * axis[0].step;
  return (depth * axis[1].in + axis[1].start[o1] + t1 * axis[1].step) * axis[2].in;
}

// Calls body(offset in the plane) for each row of the window of output (o0, o1), in order.
template <class Body>
LAMINA_INLINE void for_each_window_row(const PoolAxis* axis, int64_t o0, int64_t o1,
                                       const Body& body) {
  for (int64_t t0 = 0; t0 < axis[0].count[o0]; ++t0) {
    int64_t row = window_row(axis, o0, o1, t0, 0);
    for (int64_t t1 = 0; t1 < axis[1].count[o1]; ++t1, row += axis[1].step * axis[2].in) body(row);
  }
}

// The same as axis.covers(o, i), without a division where it needs none.
LAMINA_INLINE bool holds_input(const PoolAxis& axis, int64_t o, int64_t i) {
  const int64_t offset = i - axis.start[o];
  return axis.step == 1 ? offset >= 0 && offset < axis.count[o] : axis.covers(o, i);
}

// Calls body(o0, o1) for each row of outputs whose windows hold input row (i0, i1).
template <class Body>
LAMINA_INLINE void for_each_covering_row(const PoolAxis* axis, int64_t i0, int64_t i1,
                                         const Body& body) {
  for (int64_t o0 = axis[0].first[i0]; o0 < axis[0].last[i0]; ++o0) {
    if (!holds_input(axis[0], o0, i0)) continue;
    for (int64_t o1 = axis[1].first[i1]; o1 < axis[1].last[i1]; ++o1)
      if (holds_input(axis[1], o1, i1)) body(o0, o1);
  }
}

// The windows of an axis as base + o * stride + t * step, 0 <= t < taps, cut to the axis.
// `holds` where the tables say just that with a stride of at most `most` and a few taps.
struct RegularColumns {
  static constexpr int64_t kMaxTaps = 16;
  bool holds = false;
  int64_t base = 0, stride = 1, taps = 0;

  explicit RegularColumns(const PoolAxis& axis, int64_t most = 2) {
    int64_t whole = 0;  // an output whose window is not cut
    for (int64_t o = 1; o < axis.out; ++o)
      if (axis.count[o] > axis.count[whole]) whole = o;
    taps = axis.out > 0 ? axis.count[whole] : 0;
    if (taps < 1 || taps > kMaxTaps) return;
    for (stride = 1; stride <= most && !holds; ++stride) {
      base = axis.start[whole] - whole * stride;
      holds = true;
      for (int64_t o = 0; o < axis.out && holds; ++o) {
        const int64_t begin = base + o * stride;
        int64_t t = 0, end = taps;
        while (t < end && begin + t * axis.step < 0) ++t;
        while (end > t && begin + (end - 1) * axis.step >= axis.in) --end;
        holds = t < end && axis.start[o] == begin + t * axis.step && axis.count[o] == end - t;
      }
    }
    --stride;
  }
};

LAMINA_CPU_NAMESPACE_END
