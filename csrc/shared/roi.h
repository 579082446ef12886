// Bins of regions of interest along one axis.
#pragma once

#include <cstdint>

namespace lamina::roi {

struct Span {
  int64_t begin, end;
};

[[gnu::always_inline]] inline int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// RoI pool (Girshick 2015): the box is round(low * scale) to round(high * scale), halves away from
// 0, both ends included and at least 1 long; bin p covers floor(p n / bins) to ceil((p + 1) n /
// bins), cut to the map.
[[gnu::always_inline]] inline Span pool_span(double low, double high, double scale, int64_t bins,
                                             int64_t bin, int64_t size) {
  constexpr double kFar = 1 << 30;  // further out nothing changes, and products stay in 64 bits
  const double bounds[2] = {low * scale, high * scale};
  int64_t ends[2];
  for (int side = 0; side < 2; ++side) {
    const double v = bounds[side] < -kFar ? -kFar : bounds[side] > kFar ? kFar : bounds[side];
    ends[side] = static_cast<int64_t>(__builtin_round(v));
  }
  const int64_t length = ends[1] - ends[0] + 1 > 1 ? ends[1] - ends[0] + 1 : 1;
  const int64_t first = ends[0] + bin * length / bins;
  const int64_t last = ends[0] + ((bin + 1) * length + bins - 1) / bins;
  return {clamp(first, 0, size), clamp(last, 0, size)};
}

// RoI align (He et al. 2017): weight[size] = what each position adds to the mean of the bin's
// regular bilinear samples. Samples beyond [-1, size] count as 0; within one pixel of the border
// its value holds. ratio <= 0: ceil(length / bins) samples. Returns the span outside which weights
// are 0.
template <class T>
[[gnu::always_inline]] inline Span align_weights(double low, double high, double scale,
                                                 int64_t ratio, bool aligned, int64_t bins,
                                                 int64_t bin, int64_t size, T* weight) {
  for (int64_t i = 0; i < size; ++i) weight[i] = 0;
  const double offset = aligned ? 0.5 : 0.0;
  const double start = low * scale - offset;
  double length = high * scale - offset - start;
  if (!aligned && length < 1) length = 1;
  const double count =
      ratio > 0 ? static_cast<double>(ratio) : __builtin_ceil(length / static_cast<double>(bins));
  if (!(count >= 1) || size == 0) return {0, 0};
  const double width = length / static_cast<double>(bins), step = width / count;
  const double first_sample = start + static_cast<double>(bin) * width;
  const double last = static_cast<double>(size);
  // Only the samples near the map: a box may be far larger than it.
  double begin = 0, end = count;
  if (step > 0) {
    const double reach_low = __builtin_floor((-1 - first_sample) / step) - 1;
    const double reach_high = __builtin_ceil((last - first_sample) / step) + 1;
    begin = reach_low > 0 ? reach_low : 0;
    end = reach_high < count ? reach_high : count;
  }
  Span span{size, 0};
  for (double i = begin; i < end; ++i) {
    double v = first_sample + (i + 0.5) * width / count;
    if (!(v >= -1 && v <= last)) continue;
    v = v < 0 ? 0 : v > last - 1 ? last - 1 : v;
    const int64_t below = clamp(static_cast<int64_t>(v), 0, size - 1);
    const int64_t above = below + 1 < size ? below + 1 : below;
    const double part = v - static_cast<double>(below);
    weight[below] += static_cast<T>((1 - part) / count);
    if (part > 0) weight[above] += static_cast<T>(part / count);
    if (below < span.begin) span.begin = below;
    if ((part > 0 ? above : below) + 1 > span.end) span.end = (part > 0 ? above : below) + 1;
  }
  return span.begin < span.end ? span : Span{0, 0};
}

}  // namespace lamina::roi
