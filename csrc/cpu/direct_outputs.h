// The direct sum over vectors of output channels, for conv `direct`: where sums are too long to
// leave from the registers, or rows too short for vectors of positions (cpu/direct.h).
//
// Method        The filters are packed once a call. Some neighbours of an output row times
//               kOutputVectors vectors of sums stay in registers; a term loads its packed weights
//               and broadcasts a value of x for each neighbour, from a padded copy of the planes
//               that some planes of the result meet, or from x itself where no tap leaves its rows.
// Partitioning  image, group, output planes, band of rows, block of output channels.
// Numerics      those of cpu/direct.h.
// Floor         the FMA peak.
#pragma once

#include "cpu/direct_pass.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int kOutputVectors = 2;
// Neighbours of a tile, at most, and how many fewer others have: 28 of 32 registers, or 12 of 16.
inline constexpr int kNeighbours = kVectorBytes == 64 ? 14 : 6;
inline constexpr int kFewerNeighbours = kVectorBytes == 64 ? 3 : 1;
template <class T>
inline constexpr int64_t kOutputWidth = kOutputVectors * kLanes<T>;

// tile[Count][kOutputWidth] = a run of terms at Count neighbours, Step apart in x, or its sums with
// what the tile holds.
template <class T, int Count, int Step>
[[gnu::noinline]] static void outputs_tile(const T* x, const Term* term, const Term* end,
                                           const T* weight, T* tile, bool add) {
  Vec<T> sum[Count][kOutputVectors] = {};
  for (; term != end; ++term) {
    const T *factors = weight + term->weight, *values = x + term->x;
    Vec<T> factor[kOutputVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kOutputVectors; ++j) factor[j] = load(factors + j * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < Count; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kOutputVectors; ++j) sum[i][j] += values[i * Step] * factor[j];
  }
  store_sums<T, Count, kOutputVectors>(sum, tile, add);
}

template <class T>
struct OutputsTile {
  int64_t count = 0;  // neighbours; 0 if a row has too few
  void (*run)(const T*, const Term*, const Term*, const T*, T*, bool) = nullptr;

  explicit OutputsTile(const ops::ConvShape& s) {
    constexpr int kLess = kNeighbours - kFewerNeighbours, kLeast = kLess - kFewerNeighbours;
    const int64_t columns = s.out[2], step = s.stride[2];
    const auto consider = [&](auto size) {
      if (size > columns || (count > 0 && computed(size, columns) >= computed(count, columns)))
        return;
      count = size;
      run = step == 1   ? outputs_tile<T, size, 1>
            : step == 2 ? outputs_tile<T, size, 2>
                        : outputs_tile<T, size, 4>;
    };
    consider(std::integral_constant<int, kNeighbours>{});
    consider(std::integral_constant<int, kLess>{});
    consider(std::integral_constant<int, kLeast>{});
  }
  static int64_t computed(int64_t count, int64_t columns) {
    return ceil_div(columns, count) * count;
  }
};

// Whether this way takes less time than vectors of positions.
template <class T>
static bool prefers_outputs(const DirectPass<T>& pass) {
  const ops::ConvShape& s = pass.shape;
  constexpr int64_t kMostWeights = 1 << 17;  // of a tile's outputs: beyond, L2 is too small
  constexpr int64_t kFewestPositions = 512;  // that share the packed filters
  const int64_t lanes = s.k_per_group(), columns = s.out[2], step = s.stride[2];
  const int64_t terms = s.c_per_group() * s.kernel_size();
  const OutputsTile<T> tile(s);
  if (tile.count == 0 || terms == 0 || (step != 1 && step != 2 && step != 4)) return false;
  if (terms * kOutputWidth<T> > kMostWeights || s.n * s.out_size() < kFewestPositions) return false;
  if (columns >= kLanes<T> && terms <= kRunTerms) return false;
  const int64_t pitch = columns + PhasePlane::extra(s, 2);
  const int64_t by_rows = s.out[1] * ceil_div(columns, kLanes<T>) * kLanes<T>;
  const int64_t computed = min_of(ceil_div(s.out[1] * pitch, kLanes<T>) * kLanes<T>, by_rows);
  const int64_t outputs = ceil_div(lanes, kOutputWidth<T>) * kOutputWidth<T>;
  return s.out[1] * tile.computed(tile.count, columns) * outputs <= computed * lanes;
}

// weights[group][block of kOutputWidth outputs][channel][tap][kOutputWidth].
template <class T>
static void pack_outputs(const DirectPass<T>& pass, T* packed) {
  constexpr int64_t kWidth = kOutputWidth<T>;
  const ops::ConvShape& s = pass.shape;
  const int64_t channels = s.c_per_group(), taps = s.kernel_size();
  const int64_t blocks = ceil_div(s.k_per_group(), kWidth);
  parallel_for(s.groups * blocks * channels, [&](int64_t task) {
    const int64_t c = task % channels, g = task / (channels * blocks);
    const int64_t k0 = task / channels % blocks * kWidth;
    const int64_t count = min_of(kWidth, s.k_per_group() - k0);
    const T* weight =
        pass.weight + g * pass.weight_group + k0 * pass.weight_lane + c * pass.weight_channel;
    T* to = packed + task * taps * kWidth;
    for (int64_t i = 0; i < taps; ++i, to += kWidth) {
      const int64_t r[3] = {i / (s.kernel[1] * s.kernel[2]), i / s.kernel[2] % s.kernel[1],
                            i % s.kernel[2]};
      const T* from = weight + pass.weight_index(r);
      for (int64_t k = 0; k < count; ++k) to[k] = from[k * pass.weight_lane];
      for (int64_t k = count; k < kWidth; ++k) to[k] = 0;
    }
  });
}

// What a unit computes, and the planes of x that it meets: a copy [channel][plane][row][column] or
// x itself.
struct OutputUnits {
  bool in_place = true;
  int64_t planes, chunks;  // of the result
  int64_t rows, bands;
  int64_t block, blocks;  // output channels
  int64_t count;

  explicit OutputUnits(const ops::ConvShape& s, int64_t width) {
    for (int axis = 1; axis < 3; ++axis)
      in_place &= s.pad[axis] <= 0 && span(s, axis, s.out[axis]) - s.pad[axis] <= s.in[axis];
    const int64_t terms = s.c_per_group() * s.kernel_size();
    block = max_of<int64_t>(kBlockWeights / (terms * width), 1) * width;
    blocks = ceil_div(s.k_per_group(), block);
    const int64_t others = s.n * s.groups * blocks;
    double least = 0;  // elements copied for a position
    for (int64_t some = 1; some == 1 || (!in_place && some < 2 * s.out[0]); some *= 2) {
      const int64_t planes = min_of(some, s.out[0]), chunks = ceil_div(s.out[0], planes);
      const int64_t of_row = s.c_per_group() * span(s, 0, planes) * span(s, 2, s.out[2]);
      const int64_t fit = (kBandElements / of_row - span(s, 1, 1)) / s.stride[1] + 1;
      const int64_t few = ceil_div(kFewUnits, others * chunks);
      const int64_t most = in_place ? s.out[1] : min_of(max_of<int64_t>(fit, 1), s.out[1]);
      const int64_t bands = min_of(max_of(ceil_div(s.out[1], most), few), s.out[1]);
      const int64_t rows = ceil_div(s.out[1], bands);
      const double copied =
          static_cast<double>(of_row * span(s, 1, rows)) / static_cast<double>(rows * planes);
      if (some > 1 && (copied >= least || fit < 1)) continue;
      least = copied;
      this->planes = planes, this->chunks = chunks;
      this->rows = rows, this->bands = ceil_div(s.out[1], rows);
    }
    count = others * chunks * bands;
  }
  // Elements of an axis that `outputs` neighbours meet.
  static int64_t span(const ops::ConvShape& s, int axis, int64_t outputs) {
    return (outputs - 1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis] + 1;
  }
};

template <class T>
static void outputs_convolution(const DirectPass<T>& pass) {
  constexpr int64_t kWidth = kOutputWidth<T>;
  const ops::ConvShape& s = pass.shape;
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  const int64_t packed_blocks = ceil_div(lanes, kWidth);
  const OutputsTile<T> sums(s);
  const OutputUnits cut(s, kWidth);
  Scratch<T> filters(s.groups * packed_blocks * channels * taps * kWidth);
  pack_outputs(pass, filters.get());
  // The planes that a unit meets as a convolution of stride 1 with one position.
  ops::ConvShape window = s;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t outputs = axis == 0 ? cut.planes : axis == 1 ? cut.rows : s.out[2];
    window.kernel[axis] = OutputUnits::span(s, axis, outputs);
    window.out[axis] = window.stride[axis] = window.dilation[axis] = 1;
  }
  const PhasePlane copy(window, 1);
  const int64_t pitch = cut.in_place ? s.in[2] : copy.pitch;
  const int64_t plane = cut.in_place ? s.in[1] * s.in[2] : copy.height * pitch;
  const int64_t channel = cut.in_place ? s.in_size() : copy.size;
  const int64_t y_plane = pass.y_size[0] * pass.y_size[1] * pass.y_size[2];
  const int64_t run = max_of<int64_t>(kRunTerms / taps, 1) * taps;
  const int64_t work =
      cut.planes * cut.rows * s.out[2] * min_of(lanes, cut.block) * channels * taps;
  parallel_ranges(
      cut.count, max_of<int64_t>(kTaskTerms / work, 1), [&](int64_t begin, int64_t end) {
        Scratch<T> copied(cut.in_place ? 0 : channels * channel + kLanes<T>);
        Scratch<T> tile(sums.count * kWidth);
        Scratch<Term> term(channels * taps);
        MetTaps met_planes(s, 0), met_rows(s, 1);  // by the terms
        const auto find_terms = [&] {
          Term* next = term.get();
          for (int64_t c = 0; c < channels; ++c)
            for (int64_t r0 = met_planes.first; r0 < met_planes.last; ++r0)
              for (int64_t r1 = met_rows.first; r1 < met_rows.last; ++r1)
                for (int64_t r2 = 0; r2 < s.kernel[2]; ++r2)
                  *next++ = {c * channel + r0 * s.dilation[0] * plane + r1 * s.dilation[1] * pitch +
                                 r2 * s.dilation[2],
                             (c * taps + (r0 * s.kernel[1] + r1) * s.kernel[2] + r2) * kWidth};
        };
        find_terms();
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t first = unit % cut.blocks * cut.block;
          const int64_t row = unit / cut.blocks % cut.bands * cut.rows;
          const int64_t o0 = unit / (cut.blocks * cut.bands) % cut.chunks * cut.planes;
          const int64_t image_group = unit / (cut.blocks * cut.bands * cut.chunks);
          const int64_t n = image_group / s.groups, g = image_group % s.groups;
          const int64_t rows = min_of(cut.rows, s.out[1] - row);
          const int64_t planes = min_of(cut.planes, s.out[0] - o0);
          const T* x = pass.x + (n * s.c + g * channels) * s.in_size();
          int64_t place = 0;  // of the first position's tap 0, from x
          if (cut.in_place) {
            place = (o0 * s.stride[0] - s.pad[0]) * plane + (row * s.stride[1] - s.pad[1]) * pitch -
                    s.pad[2];
          } else {
            const MetTaps met(window, 0, o0 * s.stride[0]);
            for (int64_t c = 0; c < channels; ++c)
              fill_phase_plane(window, copy, x + c * s.in_size(), o0 * s.stride[0],
                               row * s.stride[1], met, &copied[c * channel]);
            x = copied.get();
          }
          const int64_t last = min_of(lanes, first + cut.block);
          for (int64_t p = 0; p < planes; ++p) {
            const T* const of_plane = x + (place + p * s.stride[0] * plane);
            T* y = pass.y + (n * s.k + g * lanes) * y_plane + pass.y_offset[2] +
                   ((pass.y_offset[0] + (o0 + p) * pass.y_step[0]) * pass.y_size[1] +
                    pass.y_offset[1] + row * pass.y_step[1]) *
                       pass.y_size[2];
            for (int64_t h0 = 0, h1 = 0; h0 < rows; h0 = h1) {  // that meet the same taps
              const MetTaps in_planes(s, 0, o0 + p), in_rows(s, 1, row + h0);
              while (++h1 < rows && MetTaps(s, 1, row + h1) == in_rows) {
              }
              if (!(in_planes == met_planes && in_rows == met_rows)) {
                met_planes = in_planes, met_rows = in_rows;
                find_terms();
              }
              const int64_t terms = channels * met_planes.count() * met_rows.count() * s.kernel[2];
              for (int64_t k = first; k < last; k += kWidth) {
                const T* weight =
                    &filters[(g * packed_blocks + k / kWidth) * channels * taps * kWidth];
                const T* bias = pass.bias ? pass.bias + g * lanes + k : nullptr;
                for (int64_t h = h0; h < h1; ++h)
                  for (int64_t at = 0; at < s.out[2]; at += sums.count) {
                    const int64_t column = min_of(at, s.out[2] - sums.count);
                    const T* values = of_plane + h * s.stride[1] * pitch + column * s.stride[2];
                    int64_t i = 0;
                    do {
                      const int64_t stop = min_of(i + run, terms);
                      sums.run(values, &term[i], &term[stop], weight, tile.get(), i > 0);
                      i = stop;
                    } while (i < terms);
                    store_outputs(pass, tile.get(), kWidth, sums.count, bias,
                                  min_of(kWidth, last - k), y_plane,
                                  y + k * y_plane + h * pass.y_step[1] * pass.y_size[2] +
                                      column * pass.y_step[2]);
                  }
              }
            }
          }
        }
      });
}

LAMINA_CPU_NAMESPACE_END
