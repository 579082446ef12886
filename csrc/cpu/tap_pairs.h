// The pairs of positions that the taps of a filter join, tap by tap, those in the padding left out:
// the rulebook of sparse convolutions (Graham, Engelcke, van der Maaten 2018), for dense ones.
#pragma once

#include "cpu/scratch.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

struct PositionPair {
  int32_t from, to;
};

class TapPairs {
 public:
  // To outputs from the inputs they meet, or `backward`: to inputs from the outputs.
  LAMINA_INLINE TapPairs(const ops::ConvShape& s, bool backward)
      : s_(s),
        from_(backward ? s.out : s.in),
        to_(backward ? s.in : s.out),
        met_{Scratch<int64_t>(s.kernel[0] * to_[0]), Scratch<int64_t>(s.kernel[1] * to_[1])},
        columns_(s.kernel[2] * to_[2]),
        counts_(s.kernel[2]) {
    for (int axis = 0; axis < 2; ++axis) {
      for (int64_t i = 0; i < s.kernel[axis] * to_[axis]; ++i) met_[axis][i] = -1;
      for (int64_t r = 0; r < s.kernel[axis]; ++r)
        for_met(axis, r, [&](int64_t o, int64_t i) {
          met_[axis][r * to_[axis] + (backward ? i : o)] = backward ? o : i;
        });
    }
    for (int64_t r = 0; r < s.kernel[2]; ++r) {
      int64_t count = 0;
      for_met(2, r, [&](int64_t o, int64_t i) {
        columns_[r * to_[2] + count++] = pair(backward ? o : i, backward ? i : o);
      });
      counts_[r] = count;
    }
  }

  // How many pairs tap r has to the positions [begin, end) of all images: `to` counts from the
  // first of these, `from` from the first image.
  LAMINA_INLINE int64_t find(int64_t r, int64_t begin, int64_t end, PositionPair* pairs) const {
    const int64_t r0 = r / (s_.kernel[1] * s_.kernel[2]), r1 = r / s_.kernel[2] % s_.kernel[1];
    const int64_t r2 = r % s_.kernel[2];
    const PositionPair *const of_row = &columns_[r2 * to_[2]], *const found = pairs;
    for (int64_t at = begin; at < end;) {
      const int64_t plane = at / (to_[1] * to_[2]), image = plane / to_[0];
      const int64_t plane_end = min_of((plane + 1) * to_[1] * to_[2], end);
      const int64_t i0 = met_[0][r0 * to_[0] + plane % to_[0]];
      while (i0 >= 0 && at < plane_end) {
        const int64_t row = at / to_[2], first = row * to_[2];
        const int64_t row_end = min_of(first + to_[2], end);
        const int64_t i1 = met_[1][r1 * to_[1] + row % to_[1]];
        if (i1 >= 0) {
          const PositionPair base =
              pair(((image * from_[0] + i0) * from_[1] + i1) * from_[2], first - begin);
          const int64_t last = first_column(r2, row_end - first);
          for (int64_t j = first_column(r2, at - first); j < last; ++j)
            *pairs++ = {base.from + of_row[j].from, base.to + of_row[j].to};
        }
        at = row_end;
      }
      at = plane_end;
    }
    return pairs - found;
  }

  LAMINA_INLINE static PositionPair pair(int64_t from, int64_t to) {
    return {static_cast<int32_t>(from), static_cast<int32_t>(to)};
  }

 private:
  // The first pair of tap r2 in a row to a column from `column` on.
  LAMINA_INLINE int64_t first_column(int64_t r2, int64_t column) const {
    int64_t low = 0, high = counts_[r2];
    if (column == 0) return low;
    if (column == to_[2]) return high;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (columns_[r2 * to_[2] + middle].to < column)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
  template <class Body>
  LAMINA_INLINE void for_met(int axis, int64_t r, const Body& body) const {
    for (int64_t o = 0; o < s_.out[axis]; ++o) {
      const int64_t i = o * s_.stride[axis] - s_.pad[axis] + r * s_.dilation[axis];
      if (i >= 0 && i < s_.in[axis]) body(o, i);
    }
  }

  const ops::ConvShape& s_;
  const int64_t *const from_, *const to_;  // extents
  const Scratch<int64_t> met_[2];          // [tap][to] of the axis, or -1
  const Scratch<PositionPair> columns_;    // [tap][count]
  const Scratch<int64_t> counts_;
};

LAMINA_CPU_NAMESPACE_END
