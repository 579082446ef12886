// The weight gradient of conv `direct` and `depthwise` as dot products over vectors of positions of
// the padded copy of cpu/direct.h.
//
// Partitioning  group, block of input channels, block of output channels; all images.
// Numerics      sums within a band lane by lane, then the bands of all images in order.
#pragma once

#include "cpu/direct.h"

LAMINA_CPU_NAMESPACE_BEGIN

struct Tap {
  int64_t offset;  // in the phase plane
  int64_t index;   // in the filter's kernel[0..2], flattened
};

// sum[i][j] += over q of grad_y[i][q] * x[q + taps[j]], lanes added up at the end.
template <class T, int Lanes, int Taps>
[[gnu::noinline]] static void direct_dot(const T* grad_y, int64_t lane_step, const T* x,
                                         const Tap* taps, int64_t length, T* sums) {
  Vec<T> sum[Lanes][Taps] = {};
  for (int64_t q = 0; q < length; q += kLanes<T>) {
    Vec<T> line[Taps];
#pragma GCC unroll 8
    for (int j = 0; j < Taps; ++j) line[j] = load(x + taps[j].offset + q);
#pragma GCC unroll 8
    for (int i = 0; i < Lanes; ++i) {
      const Vec<T> y = load(grad_y + i * lane_step + q);
#pragma GCC unroll 8
      for (int j = 0; j < Taps; ++j) sum[i][j] += y * line[j];
    }
  }
  for (int i = 0; i < Lanes; ++i)
    for (int j = 0; j < Taps; ++j) sums[i * Taps + j] = sum_lanes<T>(sum[i][j]);
}

// One element of the weight gradient from the formula. The vectors above multiply the zeros between
// rows of grad_y with whatever x holds there; only Inf and NaN show it, and then this decides.
template <class T>
[[maybe_unused]] static T exact_weight_gradient(const ops::ConvArgs<T>& args, int64_t k, int64_t c,
                                                int64_t r) {
  const ops::ConvShape& s = args.shape;
  const int64_t t[3] = {r / (s.kernel[1] * s.kernel[2]), r / s.kernel[2] % s.kernel[1],
                        r % s.kernel[2]};
  T sum = 0;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t o = 0; o < s.out_size(); ++o) {
      const int64_t at[3] = {o / (s.out[1] * s.out[2]), o / s.out[2] % s.out[1], o % s.out[2]};
      int64_t i = 0;
      bool inside = true;
      for (int axis = 0; axis < 3; ++axis) {
        const int64_t p = at[axis] * s.stride[axis] - s.pad[axis] + t[axis] * s.dilation[axis];
        inside &= p >= 0 && p < s.in[axis];
        i = i * s.in[axis] + p;
      }
      if (inside)
        sum += args.grad_y[(n * s.k + k) * s.out_size() + o] *
               args.x[(n * s.c + k / s.k_per_group() * s.c_per_group() + c) * s.in_size() + i];
    }
  return sum;
}

template <class T, int Lanes, int Taps>
static void direct_wgrad(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  constexpr int64_t kChannelBlock = 4, kKBlock = 32;
  const int64_t c_blocks = ceil_div(channels, kChannelBlock), k_blocks = ceil_div(lanes, kKBlock);
  const int64_t band = band_rows(s, min_of(channels, kChannelBlock));
  parallel_for(s.groups * c_blocks * k_blocks, [&](int64_t task) {
    const int64_t c0 = task / k_blocks % c_blocks * kChannelBlock, k0 = task % k_blocks * kKBlock;
    const int64_t g = task / (k_blocks * c_blocks);
    const int64_t c_count = min_of(channels - c0, kChannelBlock);
    const int64_t k_count = min_of(lanes - k0, kKBlock);
    T* grad_weight = args.result + ((g * lanes + k0) * channels + c0) * taps;
    for (int64_t k = 0; k < k_count; ++k)
      for (int64_t i = 0; i < c_count * taps; ++i) grad_weight[k * channels * taps + i] = 0;
    const PhasePlane whole(s, band);
    const int64_t room = ceil_div(band * whole.pitch, kLanes<T>) * kLanes<T>;
    Scratch<T> x(c_count * whole.size + whole.slack + kLanes<T>), y(Lanes * room);
    Scratch<Tap> tap(taps);
    T sums[Lanes * Taps];
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t o0 = 0; o0 < s.out[0]; ++o0)
        for (int64_t row = 0; row < s.out[1]; row += band) {
          const int64_t rows = min_of(band, s.out[1] - row);
          const PhasePlane plane(s, rows);
          const int64_t length = ceil_div(rows * plane.pitch, kLanes<T>) * kLanes<T>;
          for (int64_t c = 0; c < c_count; ++c)
            fill_phase_plane(s, plane, args.x + (n * s.c + g * channels + c0 + c) * s.in_size(), o0,
                             row, MetTaps(s, 0), &x[c * plane.size]);
          for (int64_t j = 0; j < plane.slack + kLanes<T>; ++j) x[c_count * plane.size + j] = 0;
          for (int64_t r = 0; r < taps; ++r)
            tap[r] = {plane.offset(s, r / (s.kernel[1] * s.kernel[2]),
                                   r / s.kernel[2] % s.kernel[1], r % s.kernel[2]),
                      r};
          for (int64_t k = 0; k < k_count; k += Lanes) {
            const int64_t some = min_of<int64_t>(Lanes, k_count - k);
            for (int64_t i = 0; i < some; ++i) {  // grad_y at the plane's pitch, zeros between rows
              const T* source = args.grad_y + (n * s.k + g * lanes + k0 + k + i) * s.out_size() +
                                (o0 * s.out[1] + row) * s.out[2];
              T* line = &y[i * length];
              for (int64_t h = 0; h < rows; ++h, line += plane.pitch, source += s.out[2]) {
                __builtin_memcpy(line, source, sizeof(T) * s.out[2]);
                for (int64_t j = s.out[2]; j < plane.pitch; ++j) line[j] = 0;
              }
              for (int64_t j = rows * plane.pitch; j < length; ++j) y[i * length + j] = 0;
            }
            for (int64_t c = 0; c < c_count; ++c)
              for (int64_t r = 0; r < taps;) {
                const bool full = some == Lanes && r + Taps <= taps;
                const int64_t lane_count = full ? Lanes : 1, tap_count = full ? Taps : 1;
                T* destination = grad_weight + (k * channels + c) * taps + r;
                for (int64_t first = 0; first < some; first += lane_count) {
                  const T* line = &y[first * length];
                  if (full)
                    direct_dot<T, Lanes, Taps>(line, length, &x[c * plane.size], &tap[r], length,
                                               sums);
                  else
                    direct_dot<T, 1, 1>(line, length, &x[c * plane.size], &tap[r], length, sums);
                  for (int64_t i = 0; i < lane_count; ++i)
                    for (int64_t j = 0; j < tap_count; ++j)
                      destination[(first + i) * channels * taps + j] += sums[i * tap_count + j];
                }
                r += tap_count;
              }
          }
        }
    for (int64_t k = 0; k < k_count; ++k)
      for (int64_t c = 0; c < c_count; ++c)
        for (int64_t r = 0; r < taps; ++r) {
          T& value = grad_weight[(k * channels + c) * taps + r];
          if (!(value - value == T(0)))
            value = exact_weight_gradient(args, g * lanes + k0 + k, c0 + c, r);
        }
  });
}

LAMINA_CPU_NAMESPACE_END
