// The direct sum, for conv `direct` and `depthwise`: no unrolled matrix, no packed panel.
//
// Method        Output positions of a band of rows are the vectors, row by row or flattened,
//               whichever takes fewer of them; Lanes output channels times Vectors vectors of sums
//               stay in registers over all input channels and taps. Every tap is a shifted load
//               from a padded copy (cpu/phase_plane.h).
// Partitioning  image, group, output depth, band of rows, block of output channels; the weight
//               gradient: group, block of input channels, block of output channels.
// Numerics      an output element sums (c, r) in order, in runs of about 256 terms. The weight
//               gradient sums within a band lane by lane, then the bands of all images in order.
#pragma once

#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/phase_plane.h"
#include "cpu/scratch.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kBandElements = 1 << 16;  // of the padded copy: stays within L2
inline constexpr int64_t kLaneBlock = 64;          // output channels that share one copy, or more
inline constexpr int64_t kBlockWeights = 1 << 16;  // if their weights are few
inline constexpr int64_t kFewUnits = 16;           // fewer are cut further
inline constexpr int64_t kRunTerms = 256;          // products summed in registers at a stretch
inline constexpr int64_t kTaskTerms = 1 << 18;     // products that are worth a task

struct Tap {
  int64_t offset;  // in the phase plane
  int64_t index;   // in the filter's kernel[0..2], flattened
};

// Output rows per band so that the copies of all channels of a group fit kBandElements.
LAMINA_INLINE int64_t band_rows(const ops::ConvShape& s, int64_t channels) {
  const PhasePlane row(s, 1);
  const int64_t per_row = channels * row.size / row.height;
  const int64_t rows = kBandElements / max_of<int64_t>(per_row, 1) - (row.height - 1);
  return min_of(max_of<int64_t>(rows, 1), s.out[1]);
}

// What distinguishes fprop from a phase of dgrad: how weights and results are addressed.
template <class T>
struct DirectPass {
  ops::ConvShape shape;
  const T* x;  // [n][c][in]
  const T* weight;
  const T* bias;  // [k] or null
  ops::Epilogue<T> epilogue;
  T* y;
  int64_t weight_group;  // steps in the weights: group, output channel, input channel
  int64_t weight_lane, weight_channel;
  int64_t kernel[3];     // extents of the filter
  int64_t tap_first[3];  // tap t of the shape is tap_first + t * tap_step of the filter
  int64_t tap_step[3];
  int64_t y_size[3];  // extents of a result plane
  int64_t y_step[3];  // position o of the shape is y_offset + o * y_step
  int64_t y_offset[3];
};

// tile[Lanes][Vectors] = the sums over channels and taps at the positions x[0..Vectors). Runs of
// about kRunTerms terms are summed in registers and then added up in the tile: rounding grows with
// the run and the number of runs.
template <class T, int Lanes, int Vectors>
[[gnu::noinline]] static void direct_tile(const T* const (&x)[Vectors], int64_t x_step,
                                          int64_t channels, const Tap* taps, int64_t count,
                                          const T* weight, int64_t lane_step, int64_t channel_step,
                                          T* tile) {
  const int64_t run = max_of<int64_t>(kRunTerms / max_of<int64_t>(count, 1), 1);
  int64_t channel = 0;  // in the copy
  for (int64_t begin = 0; begin == 0 || begin < channels; begin += run) {
    const int64_t end = min_of(begin + run, channels);
    Vec<T> sum[Lanes][Vectors] = {};
    for (int64_t c = begin; c < end; ++c, channel += x_step, weight += channel_step)
      for (int64_t r = 0; r < count; ++r) {
        const int64_t place = channel + taps[r].offset;
        const T* factor = weight + taps[r].index;
        Vec<T> line[Vectors];
#pragma GCC unroll 8
        for (int j = 0; j < Vectors; ++j) line[j] = load(x[j] + place);
#pragma GCC unroll 8
        for (int i = 0; i < Lanes; ++i)
#pragma GCC unroll 8
          for (int j = 0; j < Vectors; ++j) sum[i][j] += factor[i * lane_step] * line[j];
      }
#pragma GCC unroll 8
    for (int i = 0; i < Lanes; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j) {
        T* place = tile + (i * Vectors + j) * kLanes<T>;
        store(place, begin == 0 ? sum[i][j] : load(place) + sum[i][j]);
      }
  }
}

// The first `count` of a vector of sums into y and positions `step` apart behind it.
template <class T>
LAMINA_INLINE void store_epilogue(const DirectPass<T>& pass, Vec<T> sums, T* y, int64_t step,
                                  int64_t count) {
  count = min_of<int64_t>(count, kLanes<T>);
  if (const T* residual = pass.epilogue.residual) {
    T lanes[kLanes<T>] = {};
    for (int64_t j = 0; j < count; ++j) lanes[j] = residual[y - pass.y + j * step];
    sums += load(lanes);
  }
  sums = activate(pass.epilogue, sums);
  if (step == 1) return store_first(y, count, sums);
  T lanes[kLanes<T>];
  store(lanes, sums);
  for (int64_t j = 0; j < count; ++j) y[j * step] = lanes[j];
}

// The vectors of positions of a band of `rows` rows of a padded copy.
template <class T>
struct BandVectors {
  int64_t pitch, columns, positions;
  int64_t per_row;  // 0 if they follow each other across the rows
  int64_t count;

  LAMINA_INLINE BandVectors(int64_t pitch, int64_t columns, int64_t rows)
      : pitch(pitch), columns(columns), positions(rows * pitch) {
    const int64_t flat = ceil_div(positions, kLanes<T>);
    per_row = ceil_div(columns, kLanes<T>);
    if (rows * per_row > flat) per_row = 0;
    count = per_row ? rows * per_row : flat;
  }
  LAMINA_INLINE int64_t first(int64_t i) const {
    return per_row ? i / per_row * pitch + i % per_row * kLanes<T> : i * kLanes<T>;
  }
};

// Where the sums of a tile go: `count` of them from `from` on, to y + to.
struct SumRun {
  int64_t from, to, count;
};

// The runs of a tile's vectors within rows, for positions q[0..Vectors); their number.
template <class T, int Vectors>
static int find_runs(const DirectPass<T>& pass, const BandVectors<T>& band,
                     const int64_t (&q)[Vectors], SumRun* runs) {
  int count = 0;
  for (int j = 0; j < Vectors; ++j) {
    int64_t row = q[j] / band.pitch, column = q[j] % band.pitch;
    for (int64_t done = 0; done < kLanes<T> && q[j] + done < band.positions;) {
      const int64_t some = min_of<int64_t>(band.columns - column, kLanes<T> - done);
      if (some > 0)
        runs[count++] = {j * kLanes<T> + done,
                         row * pass.y_step[1] * pass.y_size[2] + column * pass.y_step[2], some};
      if (band.per_row) break;
      done += band.pitch - column, column = 0, ++row;
    }
  }
  return count;
}

template <class T>
static void find_taps(const DirectPass<T>& pass, const PhasePlane& plane, Tap* taps) {
  const ops::ConvShape& s = pass.shape;
  for (int64_t r = 0; r < s.kernel_size(); ++r) {
    const int64_t t[3] = {r / (s.kernel[1] * s.kernel[2]), r / s.kernel[2] % s.kernel[1],
                          r % s.kernel[2]};
    taps[r] = {plane.offset(s, t[0], t[1], t[2]), 0};
    for (int axis = 0; axis < 3; ++axis)
      taps[r].index =
          taps[r].index * pass.kernel[axis] + pass.tap_first[axis] + t[axis] * pass.tap_step[axis];
  }
}

// Where a unit's work lies: the padded copy of a band, its taps, and output channel 0 of the group.
template <class T>
struct DirectBand {
  const T* x;
  const Tap* taps;
  int64_t plane, channels, count;  // size of a plane, taps
  const T* weight;
  const T* bias;  // or null
  T* y;
  int64_t y_plane;
};

// Stores the runs of tile[lanes][Vectors], the sums of output channels from k on.
template <class T, int Vectors>
[[gnu::noinline]] static void store_tile(const DirectPass<T>& pass, const DirectBand<T>& band,
                                         const SumRun* runs, int count, const T* tile, int64_t k,
                                         int64_t lanes) {
  const auto store_all = [&](const auto& store_run) {
    for (int64_t i = 0; i < lanes; ++i, tile += Vectors * kLanes<T>) {
      const Vec<T> bias = broadcast(band.bias ? band.bias[k + i] : T(0));
      T* y = band.y + (k + i) * band.y_plane;
      for (int j = 0; j < count; ++j)
        store_run(load(tile + runs[j].from) + bias, y + runs[j].to, runs[j].count);
    }
  };
  const int64_t step = pass.y_step[2];
  if (step == 1 && !pass.epilogue.residual)
    store_all([&](Vec<T> sums, T* y, int64_t some) {
      store_first(y, some, activate(pass.epilogue, sums));
    });
  else
    store_all([&](Vec<T> sums, T* y, int64_t some) { store_epilogue(pass, sums, y, step, some); });
}

// Vectors [first, last) of a band for the output channels [lane, last_lane).
template <class T, int Lanes, int Vectors>
static void direct_vectors(const DirectPass<T>& pass, const DirectBand<T>& band,
                           const BandVectors<T>& vectors, int64_t first, int64_t last, int64_t lane,
                           int64_t last_lane, T* tile) {
  for (; first + Vectors <= last; first += Vectors) {
    const T* x[Vectors];
    int64_t q[Vectors];
    for (int j = 0; j < Vectors; ++j) q[j] = vectors.first(first + j), x[j] = band.x + q[j];
    SumRun runs[Vectors * kLanes<T>];
    const int count = find_runs(pass, vectors, q, runs);
    for (int64_t k = lane; k < last_lane;) {
      const bool full = k + Lanes <= last_lane;
      const T* factor = band.weight + k * pass.weight_lane;
      for (int64_t i = 0; i < (full ? Lanes : 1); ++i)
        for (int j = 0; j < count; ++j)
          __builtin_prefetch(band.y + (k + i) * band.y_plane + runs[j].to, 1);
      if (full)
        direct_tile<T, Lanes, Vectors>(x, band.plane, band.channels, band.taps, band.count, factor,
                                       pass.weight_lane, pass.weight_channel, tile);
      else
        direct_tile<T, 1, Vectors>(x, band.plane, band.channels, band.taps, band.count, factor,
                                   pass.weight_lane, pass.weight_channel, tile);
      store_tile<T, Vectors>(pass, band, runs, count, tile, k, full ? Lanes : 1);
      k += full ? Lanes : 1;
    }
  }
  if constexpr (Vectors > 1)
    if (first < last)
      direct_vectors<T, Lanes, (Vectors > 3 ? Vectors / 2 : Vectors - 1)>(
          pass, band, vectors, first, last, lane, last_lane, tile);
}

// How a convolution is cut: bands of output rows whose copy, and blocks of output channels whose
// weights stay within L2.
struct DirectUnits {
  int64_t block, blocks;  // channels, a multiple of `unit`
  int64_t height, bands;  // rows
  int64_t count;

  LAMINA_INLINE DirectUnits(const ops::ConvShape& s, int64_t unit) {
    const int64_t channels = s.c_per_group(), lanes = s.k_per_group();
    const int64_t terms = max_of<int64_t>(channels * s.kernel_size(), 1);
    const auto cut_lanes = [&](int64_t most) {
      blocks = ceil_div(lanes, ceil_div(most, unit) * unit);
      block = ceil_div(ceil_div(lanes, blocks), unit) * unit;
    };
    const auto others = [&] { return s.n * s.groups * s.out[0] * blocks; };
    cut_lanes(max_of(kLaneBlock, kBlockWeights / terms));
    bands = ceil_div(s.out[1], band_rows(s, channels));
    if (others() * bands < kFewUnits) {  // bands copy the rows between them twice
      const int64_t least = max_of<int64_t>(PhasePlane::extra(s, 1), 1);
      const int64_t tasks = s.out[1] * s.out[2] * block * terms / kTaskTerms;
      const int64_t wanted = min_of(ceil_div(kFewUnits, others()), tasks);
      bands = max_of(bands, min_of(wanted, s.out[1] / least));
    }
    if (others() * bands < kFewUnits) cut_lanes(kLaneBlock);
    height = ceil_div(s.out[1], bands);
    bands = ceil_div(s.out[1], height);
    count = others() * bands;
  }
};

template <class T, int Lanes, int Vectors>
static void direct_convolution(const DirectPass<T>& pass) {
  const ops::ConvShape& s = pass.shape;
  if (s.out_size() == 0 || s.n * s.k == 0) return;  // a phase beyond the last row or column
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  const DirectUnits cut(s, Lanes);
  const int64_t block = cut.block, blocks = cut.blocks, height = cut.height, bands = cut.bands;
  const PhasePlane largest(s, height);
  const int64_t work = height * largest.pitch * min_of(lanes, block) * channels * taps;
  const int64_t grain = max_of<int64_t>(kTaskTerms / max_of<int64_t>(work, 1), 1);
  parallel_ranges(cut.count, grain, [&](int64_t begin, int64_t end) {
    const int64_t slack = kLanes<T> + largest.slack;
    Scratch<T> x(channels * largest.size + slack), tile((Lanes * Vectors + 1) * kLanes<T>);
    Scratch<Tap> tap(taps);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first_lane = unit % blocks * block;
      const int64_t row = unit / blocks % bands * height, o0 = unit / (blocks * bands) % s.out[0];
      const int64_t image_group = unit / (blocks * bands * s.out[0]);
      const int64_t n = image_group / s.groups, g = image_group % s.groups;
      const int64_t rows = min_of(height, s.out[1] - row);
      const PhasePlane plane(s, rows);
      for (int64_t j = 0; j < slack; ++j) x[channels * plane.size + j] = 0;
      for (int64_t c = 0; c < channels; ++c)
        fill_phase_plane(s, plane, pass.x + (n * s.c + g * channels + c) * s.in_size(), o0, row,
                         &x[c * plane.size]);
      find_taps(pass, plane, tap.get());
      const int64_t y_plane = pass.y_size[0] * pass.y_size[1] * pass.y_size[2];
      const int64_t first_row = pass.y_offset[1] + row * pass.y_step[1];
      T* y =
          pass.y + (n * s.k + g * lanes) * y_plane + pass.y_offset[2] +
          ((pass.y_offset[0] + o0 * pass.y_step[0]) * pass.y_size[1] + first_row) * pass.y_size[2];
      const DirectBand<T> band = {x.get(),
                                  tap.get(),
                                  plane.size,
                                  channels,
                                  taps,
                                  pass.weight + g * pass.weight_group,
                                  pass.bias ? pass.bias + g * lanes : nullptr,
                                  y,
                                  y_plane};
      const BandVectors<T> vectors(plane.pitch, s.out[2], rows);
      direct_vectors<T, Lanes, Vectors>(pass, band, vectors, 0, vectors.count, first_lane,
                                        min_of(lanes, first_lane + block), tile.get());
    }
  });
}

template <class T, int Lanes, int Vectors>
static void direct_fprop(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  DirectPass<T> pass{};
  pass.shape = s;
  pass.x = args.x, pass.weight = args.weight, pass.bias = args.bias, pass.y = args.result;
  pass.epilogue = args.epilogue;
  pass.weight_channel = s.kernel_size();
  pass.weight_lane = s.c_per_group() * pass.weight_channel;
  pass.weight_group = s.k_per_group() * pass.weight_lane;
  for (int axis = 0; axis < 3; ++axis) {
    pass.kernel[axis] = s.kernel[axis], pass.tap_step[axis] = 1;
    pass.y_size[axis] = s.out[axis], pass.y_step[axis] = 1;
  }
  direct_convolution<T, Lanes, Vectors>(pass);
}

// A phase that no tap reaches: sums of nothing.
template <class T>
static void fill_phase(const DirectPass<T>& pass) {
  const ops::ConvShape& s = pass.shape;
  const int64_t* out = s.out;
  const int64_t plane_size = pass.y_size[0] * pass.y_size[1] * pass.y_size[2];
  parallel_for(s.n * s.k, [&](int64_t plane) {
    const Vec<T> value = broadcast(pass.bias ? pass.bias[plane % s.k] : T(0));
    for (int64_t j0 = 0; j0 < out[0]; ++j0)
      for (int64_t j1 = 0; j1 < out[1]; ++j1) {
        const int64_t i0 = pass.y_offset[0] + j0 * pass.y_step[0];
        const int64_t i1 = pass.y_offset[1] + j1 * pass.y_step[1];
        T* row = pass.y + plane * plane_size + (i0 * pass.y_size[1] + i1) * pass.y_size[2] +
                 pass.y_offset[2];
        for (int64_t j2 = 0; j2 < out[2]; j2 += kLanes<T>)
          store_epilogue(pass, value, row + j2 * pass.y_step[2], pass.y_step[2], out[2] - j2);
      }
  });
}

template <class T, int Lanes, int Vectors>
static void direct_dgrad(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  for (int64_t index = 0; index < conv_phases(s); ++index) {
    const ConvPhase phase = conv_phase(s, index);
    DirectPass<T> pass{};
    pass.shape = phase.shape;
    pass.x = args.grad_y, pass.weight = args.weight, pass.bias = args.bias, pass.y = args.result;
    pass.epilogue = args.epilogue;
    pass.weight_lane = s.kernel_size();
    pass.weight_channel = s.c_per_group() * pass.weight_lane;
    pass.weight_group = s.k_per_group() * pass.weight_channel;
    for (int axis = 0; axis < 3; ++axis) {
      pass.kernel[axis] = s.kernel[axis];
      pass.tap_first[axis] = phase.first[axis], pass.tap_step[axis] = -phase.step[axis];
      pass.y_size[axis] = s.in[axis];
      pass.y_step[axis] = s.stride[axis], pass.y_offset[axis] = phase.offset[axis];
    }
    if (phase.shape.kernel_size() == 0)
      fill_phase(pass);
    else
      direct_convolution<T, Lanes, Vectors>(pass);
  }
}

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
                             row, &x[c * plane.size]);
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
