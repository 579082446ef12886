// The pairs of positions that the taps of a filter join, tap by tap, those in the padding left out:
// the rulebook of sparse convolutions (Graham, Engelcke, van der Maaten 2018), for dense ones.
#pragma once

#include "cpu/scratch.h"
#include "ops/conv.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

struct PositionPair {
  int32_t from, to;
};

// Taps of a row of the filter that join the same positions: tap + i * TapPairs::tap_step to inputs
// i * TapPairs::from_step further.
struct JoinedTaps {
  int64_t tap, count;
  int64_t begin, end;  // pairs of a row
};

class TapPairs {
 public:
  // To outputs from the inputs they meet, or `backward`: to inputs from the outputs. Each tap is a
  // run or, `joined`, all that a position meets.
  LAMINA_INLINE TapPairs(const ops::ConvShape& s, bool backward, bool joined)
      : s_(s),
        from_(backward ? s.out : s.in),
        to_(backward ? s.in : s.out),
        met_{Scratch<int64_t>(s.kernel[0] * to_[0]), Scratch<int64_t>(s.kernel[1] * to_[1])},
        columns_(joined ? to_[2] : s.kernel[2] * to_[2]),
        runs_(joined ? to_[2] : s.kernel[2]) {
    const int64_t common = backward ? greatest_divisor(s.stride[2], s.dilation[2]) : 1;
    tap_step_ = backward ? s.stride[2] / common : 1;
    from_step_ = backward ? -s.dilation[2] / common : s.dilation[2];
    for (int axis = 0; axis < 2; ++axis) {
      for (int64_t i = 0; i < s.kernel[axis] * to_[axis]; ++i) met_[axis][i] = -1;
      for (int64_t r = 0; r < s.kernel[axis]; ++r)
        for_met(axis, r, [&](int64_t o, int64_t i) {
          met_[axis][r * to_[axis] + (backward ? i : o)] = backward ? o : i;
        });
    }
    if (joined) {
      join(backward);
      return;
    }
    int64_t count = 0;
    for (int64_t r = 0; r < s.kernel[2]; ++r) {
      const int64_t begin = count;
      for_met(2, r, [&](int64_t o, int64_t i) {
        columns_[count++] = pair(backward ? o : i, backward ? i : o);
      });
      runs_[run_count_++] = {r, 1, begin, count};
    }
  }
  LAMINA_INLINE int64_t runs() const { return run_count_; }
  LAMINA_INLINE const JoinedTaps& run(int64_t i) const { return runs_[i]; }
  LAMINA_INLINE int64_t tap_step() const { return tap_step_; }
  LAMINA_INLINE int64_t from_step() const { return from_step_; }

  // How many pairs a run of taps of the row r0, r1 has to the positions [begin, end) of all images:
  // `to` counts from the first of these, `from`, of the first tap, from the first image.
  LAMINA_INLINE int64_t find(int64_t r0, int64_t r1, const JoinedTaps& run, int64_t begin,
                             int64_t end, PositionPair* pairs) const {
    const PositionPair* const found = pairs;
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
          const int64_t last = first_column(run, row_end - first);
          for (int64_t j = first_column(run, at - first); j < last; ++j)
            *pairs++ = {base.from + columns_[j].from, base.to + columns_[j].to};
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
  // Columns that meet the same taps, in order.
  LAMINA_INLINE void join(bool backward) {
    struct Column {
      int64_t tap, count, from, run;
    };
    Scratch<Column> columns(to_[2]);
    for (int64_t i = 0; i < to_[2]; ++i) columns[i] = {0, 0, 0, 0};
    for (int64_t r = 0; r < s_.kernel[2]; ++r)
      for_met(2, r, [&](int64_t o, int64_t i) {
        Column& column = columns[backward ? i : o];
        if (column.count++ == 0) column.tap = r, column.from = backward ? o : i;
      });
    for (int64_t i = 0; i < to_[2]; ++i) {
      Column& column = columns[i];
      if (column.count == 0) continue;
      const auto same = [&](int64_t e) {
        return runs_[e].tap == column.tap && runs_[e].count == column.count;
      };
      int64_t& e = column.run;
      if (i > 0 && columns[i - 1].count > 0 && same(columns[i - 1].run)) e = columns[i - 1].run;
      while (e < run_count_ && !same(e)) ++e;
      if (e == run_count_) runs_[run_count_++] = {column.tap, column.count, 0, 0};
      ++runs_[e].end;
    }
    int64_t begin = 0;
    for (int64_t e = 0; e < run_count_; ++e) {
      const int64_t count = runs_[e].end;
      runs_[e].begin = runs_[e].end = begin, begin += count;
    }
    for (int64_t i = 0; i < to_[2]; ++i)
      if (columns[i].count > 0) columns_[runs_[columns[i].run].end++] = pair(columns[i].from, i);
  }
  // The first pair of a run in a row to a column from `column` on.
  LAMINA_INLINE int64_t first_column(const JoinedTaps& run, int64_t column) const {
    int64_t low = run.begin, high = run.end;
    if (column == 0) return low;
    if (column == to_[2]) return high;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (columns_[middle].to < column)
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
  const Scratch<PositionPair> columns_;    // of a row, run by run
  const Scratch<JoinedTaps> runs_;
  int64_t run_count_ = 0, tap_step_, from_step_;
};

LAMINA_CPU_NAMESPACE_END
