// Bins of regions of interest along one axis.
#pragma once

#include <cstdint>

namespace lamina::roi {

struct Span {
  int64_t begin, end;
};

[[gnu::always_inline]] constexpr int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// floor and ceil that kernels of every backend can call.
[[gnu::always_inline]] constexpr double floor(double x) {
  if (!(x > -0x1p52 && x < 0x1p52)) return x;  // an integer, or no number
  const double whole = static_cast<double>(static_cast<int64_t>(x));
  return whole > x ? whole - 1 : whole;
}
[[gnu::always_inline]] constexpr double ceil(double x) {
  return -floor(-x);
}

// The positions from round(low * scale) to round(high * scale), halves away from 0: both included,
// at least one.
[[gnu::always_inline]] constexpr Span pool_box(double low, double high, double scale) {
  constexpr double kFar = 1 << 30;  // further out nothing changes, and products stay in 64 bits
  const double bounds[2] = {low * scale, high * scale};
  int64_t ends[2] = {0, 0};
  for (int side = 0; side < 2; ++side) {
    const double v = bounds[side] < -kFar ? -kFar : bounds[side] > kFar ? kFar : bounds[side];
    const int64_t whole = static_cast<int64_t>(v);
    const double rest = v - static_cast<double>(whole);
    ends[side] = whole + (rest >= 0.5 ? 1 : rest <= -0.5 ? -1 : 0);
  }
  return {ends[0], ends[1] > ends[0] ? ends[1] + 1 : ends[0] + 1};
}

// RoI pool (Girshick 2015): of a box of n positions, bin p covers floor(p n / bins) to
// ceil((p + 1) n / bins), cut to the map.
[[gnu::always_inline]] constexpr Span pool_span(double low, double high, double scale, int64_t bins,
                                                int64_t bin, int64_t size) {
  const Span box = pool_box(low, high, scale);
  const int64_t length = box.end - box.begin;
  const int64_t first = box.begin + bin * length / bins;
  const int64_t last = box.begin + ((bin + 1) * length + bins - 1) / bins;
  return {clamp(first, 0, size), clamp(last, 0, size)};
}

// The bins whose spans hold position i of the map: p n < (r + 1) bins and (p + 1) n > r bins, with
// r counted from the start of the box.
[[gnu::always_inline]] constexpr Span pool_bins_at(double low, double high, double scale,
                                                   int64_t bins, int64_t i) {
  const Span box = pool_box(low, high, scale);
  const int64_t length = box.end - box.begin, r = i - box.begin;
  if (r < 0 || r >= length) return {0, 0};
  return {r * bins / length, clamp(((r + 1) * bins + length - 1) / length, 0, bins)};
}

// The samples of one bin of RoI align (He et al. 2017): `count` of them, `width` / count apart.
// Only those from `begin` to `end` can be near the map: a box may be far larger than it.
struct AlignBin {
  double first, width, count, begin, end;
};

// One bilinear sample: 1 - part of position `below` and `part` of the one above it.
struct AlignSample {
  int64_t below;
  double part;
  bool counts;
};

// ratio <= 0: ceil(length / bins) samples.
[[gnu::always_inline]] constexpr AlignBin align_bin(double low, double high, double scale,
                                                    int64_t ratio, bool aligned, int64_t bins,
                                                    int64_t bin, int64_t size) {
  const double offset = aligned ? 0.5 : 0.0;
  const double start = low * scale - offset;
  double length = high * scale - offset - start;
  if (!aligned && length < 1) length = 1;
  const double count =
      ratio > 0 ? static_cast<double>(ratio) : ceil(length / static_cast<double>(bins));
  // With more samples than doubles count, each adds less than rounding takes away.
  if (!(count >= 1 && count < 0x1p50) || size == 0) return {0, 0, 1, 0, 0};
  const double width = length / static_cast<double>(bins), step = width / count;
  AlignBin samples{start + static_cast<double>(bin) * width, width, count, 0, count};
  if (step > 0) {
    const double low_end = floor((-1 - samples.first) / step) - 1;
    const double high_end = ceil((static_cast<double>(size) - samples.first) / step) + 1;
    if (low_end > 0) samples.begin = low_end;
    if (high_end < count) samples.end = high_end;
  }
  return samples;
}

// Samples beyond [-1, size] count as 0; within one pixel of the border its value holds.
[[gnu::always_inline]] constexpr AlignSample align_sample(const AlignBin& bin, double i,
                                                          int64_t size) {
  const double last = static_cast<double>(size);
  double v = bin.first + (i + 0.5) * bin.width / bin.count;
  if (!(v >= -1 && v <= last)) return {0, 0, false};
  v = v < 0 ? 0 : v > last - 1 ? last - 1 : v;
  const int64_t below = clamp(static_cast<int64_t>(v), 0, size - 1);
  return {below, v - static_cast<double>(below), true};
}

// weight[size] = what each position adds to the mean of the bin's samples. Returns the span outside
// which weights are 0.
template <class T>
[[gnu::always_inline]] constexpr Span align_weights(double low, double high, double scale,
                                                    int64_t ratio, bool aligned, int64_t bins,
                                                    int64_t bin, int64_t size, T* weight) {
  for (int64_t i = 0; i < size; ++i) weight[i] = 0;
  const AlignBin samples = align_bin(low, high, scale, ratio, aligned, bins, bin, size);
  Span span{size, 0};
  for (double i = samples.begin; i < samples.end; ++i) {
    const AlignSample sample = align_sample(samples, i, size);
    if (!sample.counts) continue;
    const int64_t above = sample.below + (sample.part > 0 ? 1 : 0);
    weight[sample.below] += static_cast<T>((1 - sample.part) / samples.count);
    if (sample.part > 0) weight[above] += static_cast<T>(sample.part / samples.count);
    if (sample.below < span.begin) span.begin = sample.below;
    if (above + 1 > span.end) span.end = above + 1;
  }
  return span.begin < span.end ? span : Span{0, 0};
}

// Calls emit(position, weight) for the weights of the same bin that are not 0, positions ascending.
template <class T, class Emit>
[[gnu::always_inline]] constexpr void for_each_align_weight(const AlignBin& samples, int64_t size,
                                                            const Emit& emit) {
  int64_t at = -2;
  T here = 0, next = 0;  // so far, of positions `at` and `at` + 1
  const auto move_to = [&](int64_t position) {
    const bool neighbour = position == at + 1;
    if (here != T(0)) emit(at, here);
    if (!neighbour && next != T(0)) emit(at + 1, next);
    here = neighbour ? next : T(0), next = 0, at = position;
  };
  // A box that is given from high to low has its samples in falling order.
  const bool falling = samples.width < 0;
  for (double n = 0; n < samples.end - samples.begin; ++n) {
    const double i = falling ? samples.end - 1 - n : samples.begin + n;
    const AlignSample sample = align_sample(samples, i, size);
    if (!sample.counts) continue;
    if (sample.below != at) move_to(sample.below);
    here += static_cast<T>((1 - sample.part) / samples.count);
    if (sample.part > 0) next += static_cast<T>(sample.part / samples.count);
  }
  move_to(at + 2);
}

}  // namespace lamina::roi
