// The direct sum over vectors of input channels, for conv `direct`, fprop: volumes of many channels
// at a stride, whose rows are too short to be copied one by one.
//
// Method        x and the filters are laid out with the input channels last, once a call. Of a row
//               of taps, some of the positions that meet the same ones times some output channels
//               keep their sums in registers, whose lanes are input channels and are folded
//               together: as many sums as lanes, one vector.
// Partitioning  image, group, run of positions, block of output channels.
// Numerics      rows of taps sum their channels in lanes and these as a fixed tree, and follow in
//               order; those in the padding are left out.
// Floor         the FMA peak.
#pragma once

#include "cpu/channels_last.h"
#include "cpu/direct_pass.h"
#include "cpu/tap_pairs.h"
#include "shared/direct_inputs.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
inline constexpr int kTilePositions = kLanes<T> >= 16  ? 4
                                      : kLanes<T> >= 4 ? 2
                                                       : 1;
template <class T>
inline constexpr int kTileOutputs = kLanes<T> / kTilePositions<T>;

// Lane i * kTileOutputs + k is the sum of `length` products of position x[i] and output k, whose
// weights are `pitch` behind those of the output before it.
template <class T>
[[gnu::noinline]] static Vec<T> inputs_tile(const T* const (&x)[kTilePositions<T>], const T* weight,
                                            int64_t pitch, int64_t length) {
  constexpr int kOutputs = kTileOutputs<T>;
  Vec<T> sum[kLanes<T>] = {};
  for (int64_t c = 0; c < length; c += kLanes<T>) {
    Vec<T> factor[kOutputs];
#pragma GCC unroll 4
    for (int k = 0; k < kOutputs; ++k) factor[k] = load(weight + k * pitch + c);
#pragma GCC unroll 4
    for (int i = 0; i < kTilePositions<T>; ++i) {
      const Vec<T> value = load(x[i] + c);
#pragma GCC unroll 4
      for (int k = 0; k < kOutputs; ++k) sum[i * kOutputs + k] += value * factor[k];
    }
  }
  return fold_each<T>(sum, [](Vec<T> a, Vec<T> b) { return a + b; });
}

template <class T>
struct InputsLayout {
  int64_t width;             // input channels of a group, whole vectors
  int64_t channels, planes;  // of a group; positions of x, of all planes
  int64_t tiles;             // of the outputs of a group

  explicit InputsLayout(const ops::ConvShape& s)
      : width(ceil_div(s.c_per_group(), kLanes<T>) * kLanes<T>),
        channels(s.c_per_group()),
        planes(s.in_size()),
        tiles(ceil_div(s.k_per_group(), kTileOutputs<T>)) {}

  // [group][tile][row of taps][kTileOutputs][tap of the row][width]
  void lay_filters(const DirectPass<T>& pass, T* to) const {
    constexpr int64_t kOutputs = kTileOutputs<T>;
    const ops::ConvShape& s = pass.shape;
    const int64_t taps = s.kernel_size(), of_row = s.kernel[2] * width;
    parallel_for(s.groups * tiles * kOutputs, [&](int64_t task) {
      const int64_t g = task / (tiles * kOutputs), k = task % (tiles * kOutputs);
      const T* const from = pass.weight + g * pass.weight_group + k * pass.weight_lane;
      const int64_t lines = k < s.k_per_group() ? channels : 0, tile = g * tiles + k / kOutputs;
      T* const first = to + (tile * taps * kOutputs + k % kOutputs * s.kernel[2]) * width;
      const auto of_tap = [&](int64_t i) {
        return first + i / s.kernel[2] * kOutputs * of_row + i % s.kernel[2] * width;
      };
      lay_lines_last(from, lines, pass.weight_channel, taps, width, of_tap);
    });
  }
};

// y at `count` positions of an output channel, from sums `step` apart.
template <class T>
static void store_positions(const DirectPass<T>& pass, const T* sums, int64_t step, int64_t count,
                            T bias, T* y) {
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    T lanes[kLanes<T>] = {};
    for (int64_t j = 0; j < min_of<int64_t>(count - i, kLanes<T>); ++j)
      lanes[j] = sums[(i + j) * step] + bias;
    store_epilogue(pass, load(lanes), y + i, 1, count - i);
  }
}

// A convolution that prefers_inputs; pass is that of fprop.
template <class T>
static void inputs_convolution(const DirectPass<T>& pass) {
  constexpr int64_t kOutputs = kTileOutputs<T>, kPositions = kTilePositions<T>, kRun = 256;
  const ops::ConvShape& s = pass.shape;
  const InputsLayout<T> layout(s);
  const int64_t width = layout.width, of_row = s.kernel[2] * width;
  const int64_t of_tile = s.kernel[0] * s.kernel[1] * kOutputs * of_row;
  const Scratch<T> x(s.n * s.groups * layout.planes * width);
  const Scratch<T> filters(s.groups * layout.tiles * of_tile);
  lay_channels_last(pass.x, s.n, s.groups, layout.channels, layout.planes, width, x.get());
  layout.lay_filters(pass, filters.get());
  const int64_t runs = ceil_div(s.out_size(), kRun), run = ceil_div(s.out_size(), runs);
  const int64_t others = s.n * s.groups * runs;
  const TapPairs met(s, false, s.dilation[2] == 1);  // of neighbours, one sum
  const int64_t block = ceil_div(layout.tiles, max_of<int64_t>(ceil_div(kFewUnits, others), 1));
  const int64_t blocks = ceil_div(layout.tiles, block);
  parallel_for(others * blocks, [&](int64_t unit) {
    const int64_t first_tile = unit % blocks * block, first = unit / blocks % runs * run;
    const int64_t image_group = unit / (blocks * runs), g = image_group % s.groups;
    const int64_t count = min_of(run, s.out_size() - first);
    const int64_t last_tile = min_of(layout.tiles, first_tile + block);
    if (count <= 0) return;
    const T* const lines = x.get() + g * s.n * layout.planes * width;
    const int64_t begin = image_group / s.groups * s.out_size() + first;
    // [tile][position][kOutputs]
    Scratch<T> sums((last_tile - first_tile) * count * kOutputs);
    for (int64_t i = 0; i < (last_tile - first_tile) * count * kOutputs; ++i) sums[i] = 0;
    Scratch<PositionPair> pairs(count);
    for (int64_t row = 0; row < s.kernel[0] * s.kernel[1]; ++row)
      for (int64_t e = 0; e < met.runs(); ++e) {
        const JoinedTaps& taps = met.run(e);
        const int64_t some =
            met.find(row / s.kernel[1], row % s.kernel[1], taps, begin, begin + count, pairs.get());
        for (int64_t tile = first_tile; tile < last_tile; ++tile) {
          const T* const weight = &filters[(g * layout.tiles + tile) * of_tile +
                                           row * kOutputs * of_row + taps.tap * width];
          T* const own = &sums[(tile - first_tile) * count * kOutputs];
          for (int64_t i = 0; i < some; i += kPositions) {
            const T* of[kPositions];
            for (int64_t j = 0; j < kPositions; ++j)
              of[j] = lines + pairs[min_of(i + j, some - 1)].from * width;
            T found[kLanes<T>];
            store(found, inputs_tile<T>(of, weight, of_row, taps.count * width));
            for (int64_t j = 0; j < min_of(kPositions, some - i); ++j)
              for (int64_t k = 0; k < kOutputs; ++k)
                own[pairs[i + j].to * kOutputs + k] += found[j * kOutputs + k];
          }
        }
      }
    T* const y = pass.y + image_group * s.k_per_group() * s.out_size() + first;
    for (int64_t k = first_tile * kOutputs; k < min_of(s.k_per_group(), last_tile * kOutputs); ++k)
      store_positions(pass, &sums[(k / kOutputs - first_tile) * count * kOutputs + k % kOutputs],
                      kOutputs, count, pass.bias ? pass.bias[g * s.k_per_group() + k] : T(0),
                      y + k * s.out_size());
  });
}

LAMINA_CPU_NAMESPACE_END
