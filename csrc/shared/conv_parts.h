// A convolution, or the input gradient of one, as several convolutions of the same input that
// each use some taps of the filter: the phases of a strided gradient (shared/conv_phase.h), and
// regions of the output whose other taps lie wholly in the padding, where leaving those out pays.
#pragma once

#include "ops/conv.h"
#include "shared/conv_phase.h"

namespace lamina {

struct ConvPart {
  ops::ConvShape shape;          // its outputs and taps
  int64_t first[3], step[3];     // tap t of the shape is tap first + t * step of the filter
  int64_t offset[3], stride[3];  // output o is at offset + o * stride of the result

  constexpr int64_t tap(int axis, int64_t t) const { return first[axis] + t * step[axis]; }
};

// Outputs [begin[i], begin[i + 1]) of an axis meet the taps [low[i], high[i]).
struct AxisRegions {
  static constexpr int kMost = 16;
  int64_t begin[kMost + 1] = {}, low[kMost] = {}, high[kMost] = {};
  int count = 0;

  // One region with all taps, or `split`: those that do not lie in the padding.
  [[gnu::always_inline]] constexpr AxisRegions(const ops::ConvShape& s, int axis, bool split) {
    const int64_t out = s.out[axis], taps = s.kernel[axis], in = s.in[axis];
    for (int64_t o = 0; split && o < out; ++o) {
      const int64_t at = o * s.stride[axis] - s.pad[axis], dilation = s.dilation[axis];
      int64_t from = at < 0 ? (-at + dilation - 1) / dilation : 0;
      int64_t to = at < in ? (in - 1 - at) / dilation + 1 : 0;
      if (from > taps) from = taps;
      if (to > taps) to = taps;
      if (to < from) to = from;
      if (count > 0 && low[count - 1] == from && high[count - 1] == to) continue;
      if (count == kMost) split = false;
      if (count < kMost) begin[count] = o, low[count] = from, high[count] = to, ++count;
    }
    if (!split || count == 0) begin[0] = 0, low[0] = 0, high[0] = taps, count = 1;
    begin[count] = out;
  }
};

// How an output plane is cut into regions.
struct PlaneRegions {
  AxisRegions rows, columns;

  [[gnu::always_inline]] constexpr explicit PlaneRegions(const ops::ConvShape& s)
      : rows(s, 1, false), columns(s, 2, false) {
    if (s.dilation[1] * (s.kernel[1] - 1) * 4 < s.in[1] &&
        s.dilation[2] * (s.kernel[2] - 1) * 4 < s.in[2])
      return;  // few taps lie outside
    int64_t least = products(s, rows, columns) * 7 / 8;
    for (int which = 1; which < 4; ++which) {
      const AxisRegions across(s, 1, which & 1), along(s, 2, which & 2);
      const int64_t count = products(s, across, along);
      if (count < least) least = count, rows = across, columns = along;
    }
  }

 private:
  // In whole vectors of positions.
  [[gnu::always_inline]] static constexpr int64_t products(const ops::ConvShape& s,
                                                           const AxisRegions& rows,
                                                           const AxisRegions& columns) {
    int64_t sum = 0;
    for (int i = 0; i < rows.count; ++i)
      for (int j = 0; j < columns.count; ++j) {
        const int64_t positions = s.n * s.out[0] * (rows.begin[i + 1] - rows.begin[i]) *
                                  (columns.begin[j + 1] - columns.begin[j]);
        sum += (positions + 15) / 16 * 16 * (rows.high[i] - rows.low[i]) *
               (columns.high[j] - columns.low[j]);
      }
    return sum;
  }
};

// Calls body(part) for every part of fprop or dgrad; most convolutions are a single one.
template <class Body>
[[gnu::always_inline]] constexpr void for_each_part(ops::ConvPass pass, const ops::ConvShape& s,
                                                    const Body& body) {
  const bool backward = pass == ops::ConvPass::dgrad;
  for (int64_t which = 0; which < (backward ? conv_phases(s) : 1); ++which) {
    ConvPart whole{s, {0, 0, 0}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
    if (backward) {
      const ConvPhase phase = conv_phase(s, which);
      whole.shape = phase.shape;
      for (int axis = 0; axis < 3; ++axis) {
        whole.first[axis] = phase.first[axis], whole.step[axis] = -phase.step[axis];
        whole.offset[axis] = phase.offset[axis], whole.stride[axis] = s.stride[axis];
      }
    }
    if (whole.shape.out_size() == 0) continue;
    const PlaneRegions regions(whole.shape);
    for (int i = 0; i < regions.rows.count; ++i)
      for (int j = 0; j < regions.columns.count; ++j) {
        ConvPart part = whole;
        for (int axis = 1; axis < 3; ++axis) {
          const AxisRegions& region = axis == 1 ? regions.rows : regions.columns;
          const int64_t at = axis == 1 ? i : j, begin = region.begin[at], low = region.low[at];
          part.shape.out[axis] = region.begin[at + 1] - begin;
          part.shape.kernel[axis] = region.high[at] - low;
          part.shape.pad[axis] -= begin * part.shape.stride[axis] + low * part.shape.dilation[axis];
          part.first[axis] += low * part.step[axis];
          part.offset[axis] += begin * part.stride[axis];
        }
        body(part);
      }
  }
}

[[gnu::always_inline]] constexpr int64_t count_parts(ops::ConvPass pass, const ops::ConvShape& s) {
  int64_t count = 0;
  for_each_part(pass, s, [&](const ConvPart&) { ++count; });
  return count;
}
// Whether it is anything else than one convolution of its own shape.
[[gnu::always_inline]] constexpr bool in_parts(ops::ConvPass pass, const ops::ConvShape& s) {
  return (pass == ops::ConvPass::dgrad && conv_phases(s) > 1) || count_parts(pass, s) > 1;
}

// Whether the CPU's implicit GEMM computes the gradient from the columns of its taps
// (cpu/conv_columns.h), none of which lies in the padding: at a stride, or where grad_y has few of
// the positions.
[[gnu::always_inline]] constexpr bool in_columns(const ops::ConvShape& s) {
  return conv_phases(s) > 1 || 2 * s.out_size() <= s.in_size();
}

// What a filter meets along an axis, over all outputs: pairs of a tap and an input, and taps that
// are in any.
struct MetInputs {
  int64_t pairs = 0, taps = 0;
};
constexpr MetInputs met_inputs(const ops::ConvShape& s, int axis) {
  MetInputs met;
  for (int64_t r = 0; r < s.kernel[axis]; ++r) {
    const int64_t offset = r * s.dilation[axis] - s.pad[axis], stride = s.stride[axis];
    const int64_t first = offset < 0 ? (-offset + stride - 1) / stride : 0;
    int64_t end = offset < s.in[axis] ? (s.in[axis] - 1 - offset) / stride + 1 : 0;
    if (end > s.out[axis]) end = s.out[axis];
    if (end > first) met.pairs += end - first, ++met.taps;
  }
  return met;
}

// The share of a filter's taps along an axis that fall inside the input, over all outputs.
constexpr double inside_share(const ops::ConvShape& s, int axis) {
  const int64_t all = s.out[axis] * s.kernel[axis];
  return static_cast<double>(met_inputs(s, axis).pairs) / static_cast<double>(all > 1 ? all : 1);
}

}  // namespace lamina
