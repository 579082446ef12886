// conv, implicit GEMM, weight gradient: the matrix product of im2col with its roles exchanged.
//
//   grad_weight[c r][k] = col[c r][o] grad_y[k][o]^T, positions o of all images
//
// Method        The vectors are output channels: grad_y is transposed into panels. The other factor
//               is broadcast one value at a time, so that the unrolled input exists nowhere: its
//               rows are places in a zero-padded copy of x, or x itself, whatever the stride. Rows
//               count taps first, then channels; output positions that no tap of a group of rows
//               meets are left out.
// Partitioning  blocks of input and output channels, parts of the positions (shared/
//               implicit_gemm.h), whose sums are added in order. Each task pads and transposes for
//               itself, a band of positions at a time.
// Workspace     partial sums where filters are few.
// Numerics      sums over the positions of a band in registers, bands in order.
// Floor         the FMA peak: a transposed value of grad_y is used for some 288 rows, a padded one
//               of x for up to 192 output channels.
#include "cpu/add_parts.h"
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "ops/instantiate.h"
#include "shared/implicit_gemm.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

// Output positions [o1, o1 + rows) x [o2, o2 + columns) of depth o0 of an image.
struct Band {
  int64_t image, o0, o1, o2, rows, columns;
};

static Band band_of(const ConvShape& s, const ImplicitGemmGradient& plan, int64_t index) {
  const int64_t across = ceil_div(s.out[2], plan.columns), down = ceil_div(s.out[1], plan.rows);
  const int64_t o2 = index % across * plan.columns, o1 = index / across % down * plan.rows;
  return {index / (across * down * s.out[0]), index / (across * down) % s.out[0], o1, o2,
          min_of(plan.rows, s.out[1] - o1),   min_of(plan.columns, s.out[2] - o2)};
}

// Where the taps of a band's positions lie: in a zero-padded copy of the channels of a block
// [channel][r0][height][pitch] or in x itself, where no tap leaves x, or where the rows of a group
// share a tap, which is left out beyond x, and most rows of a copy would be none of the band's.
template <class T>
struct TapPlaces {
  bool in_place;
  int64_t channel, plane, pitch;  // steps: channels, planes of neighbouring r0, rows
  int64_t height;                 // rows of a copied plane

  LAMINA_INLINE TapPlaces(const ConvShape& s, const ImplicitGemmGradient& plan) : in_place(true) {
    for (int axis = 0; axis < 3; ++axis)
      in_place &= s.pad[axis] <= 0 && (s.out[axis] - 1) * s.stride[axis] - s.pad[axis] +
                                              (s.kernel[axis] - 1) * s.dilation[axis] <
                                          s.in[axis];
    height = (plan.rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
    constexpr int64_t kRows = GemmTile<T>::kRows;
    const bool share_taps = plan.channels % kRows == 0 && s.c_per_group() % kRows == 0;
    in_place |= share_taps && height > 3 * plan.rows * s.stride[1];
    pitch = in_place ? s.in[2]
                     : (plan.columns - 1) * s.stride[2] + (s.kernel[2] - 1) * s.dilation[2] + 1;
    plane = in_place ? s.dilation[0] * s.in[1] * s.in[2] : height * pitch;
    channel = in_place ? s.in_size() : s.kernel[0] * plane;
  }
  LAMINA_INLINE int64_t tap(const ConvShape& s, const int64_t (&r)[3]) const {
    return r[0] * plane + r[1] * s.dilation[1] * pitch + r[2] * s.dilation[2];
  }
  // The first position's tap 0 in x.
  LAMINA_INLINE static int64_t origin(const ConvShape& s, const Band& band) {
    const int64_t i0 = band.o0 * s.stride[0] - s.pad[0], i1 = band.o1 * s.stride[1] - s.pad[1];
    return (i0 * s.in[1] + i1) * s.in[2] + band.o2 * s.stride[2] - s.pad[2];
  }
};

// The padded copy of `channels` channels of x.
template <class T>
static void pad_channels(const ConvShape& s, const TapPlaces<T>& places, const Band& band,
                         const T* x, int64_t channels, T* padded) {
  const int64_t i2 = band.o2 * s.stride[2] - s.pad[2];
  const int64_t height = (band.rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
  for (int64_t c = 0; c < channels; ++c, x += s.in_size())
    for (int64_t r0 = 0; r0 < s.kernel[0]; ++r0) {
      const int64_t i0 = band.o0 * s.stride[0] - s.pad[0] + r0 * s.dilation[0];
      for (int64_t h = 0; h < height; ++h) {
        const int64_t i1 = band.o1 * s.stride[1] - s.pad[1] + h;
        const bool inside = i0 >= 0 && i0 < s.in[0] && i1 >= 0 && i1 < s.in[1];
        const T* source = x + (i0 * s.in[1] + i1) * s.in[2] + i2;
        T* row = padded + c * places.channel + r0 * places.plane + h * places.pitch;
        if (inside && c + 1 < channels) prefetch_line(source + s.in_size(), places.pitch);
        for (int64_t j = 0; j < places.pitch; j += kLanes<T>)
          store_first(row + j, places.pitch - j,
                      inside ? load_lanes(source + j, -(i2 + j), s.in[2] - (i2 + j)) : Vec<T>{});
      }
    }
}

// sums[kRows][Vectors * kLanes] += over `lines` rows of `count` positions of x[offset[i] +
// position] times panel[position][Vectors * kLanes].
template <class T, int Vectors>
[[gnu::noinline]] static void add_products(int64_t lines, int64_t count, const T* x,
                                           const int64_t* offset, int64_t x_line, int64_t x_step,
                                           const T* panel, int64_t panel_line, T* sums) {
  constexpr int kRows = GemmTile<T>::kRows;
  Vec<T> sum[kRows][Vectors] = {};
  for (int64_t line = 0; line < lines; ++line, x += x_line, panel += panel_line) {
    const T* row[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) row[i] = x + offset[i];
    const T* factors = panel;
    for (int64_t at = 0; at < count * x_step; at += x_step, factors += Vectors * kLanes<T>) {
      Vec<T> factor[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) factor[j] = load(factors + j * kLanes<T>);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) sum[i][j] += row[i][at] * factor[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      T* place = sums + (i * Vectors + j) * kLanes<T>;
      store(place, load(place) + sum[i][j]);
    }
}

// A group of kRows rows of the unrolled input, (tap, channel) from `row` on.
template <class T>
struct RowGroup {
  int64_t offset[GemmTile<T>::kRows];               // beyond the last row: those of the first
  InsideRange range[3] = {{0, 0}, {0, 0}, {0, 0}};  // output positions that its taps meet

  LAMINA_INLINE RowGroup(const ConvShape& s, const TapPlaces<T>& places, int64_t channels,
                         int64_t row) {
    for (int i = 0; i < GemmTile<T>::kRows; ++i) {
      const int64_t at = row + i < channels * s.kernel_size() ? row + i : row;
      const int64_t t = at / channels;
      const int64_t r[3] = {t / (s.kernel[1] * s.kernel[2]), t / s.kernel[2] % s.kernel[1],
                            t % s.kernel[2]};
      offset[i] = at % channels * places.channel + places.tap(s, r);
      for (int axis = 0; axis < 3; ++axis) {
        const InsideRange met = inside_range(r[axis] * s.dilation[axis] - s.pad[axis],
                                             s.stride[axis], s.in[axis], s.out[axis]);
        if (met.first >= met.last) continue;
        InsideRange& all = range[axis];
        all = all.first < all.last
                  ? InsideRange{min_of(all.first, met.first), max_of(all.last, met.last)}
                  : met;
      }
    }
  }

  // sums[kRows][width] += the products with the panel of a band.
  LAMINA_INLINE void multiply(const ConvShape& s, const TapPlaces<T>& places, const Band& band,
                              const T* x, const T* panel, int64_t width, T* sums) const {
    if (band.o0 < range[0].first || band.o0 >= range[0].last) return;
    const int64_t o1 = max_of(band.o1, range[1].first), o2 = max_of(band.o2, range[2].first);
    const int64_t lines = min_of(band.o1 + band.rows, range[1].last) - o1;
    const int64_t count = min_of(band.o2 + band.columns, range[2].last) - o2;
    if (lines <= 0 || count <= 0) return;
    const int64_t line_step = s.stride[1] * places.pitch, panel_line = band.columns * width;
    x += (o1 - band.o1) * line_step + (o2 - band.o2) * s.stride[2];
    panel += (o1 - band.o1) * panel_line + (o2 - band.o2) * width;
    constexpr int kVectors = GemmTile<T>::kVectors;
    if (width == kVectors * kLanes<T>)
      add_products<T, kVectors>(lines, count, x, offset, line_step, s.stride[2], panel, panel_line,
                                sums);
    else if (kVectors > 2 && width == 2 * kLanes<T>)
      add_products<T, 2>(lines, count, x, offset, line_step, s.stride[2], panel, panel_line, sums);
    else
      add_products<T, 1>(lines, count, x, offset, line_step, s.stride[2], panel, panel_line, sums);
  }
};

// grad_weight[k][channel][tap] of `outputs` up to kLanes output channels, from
// sums[tap][channel][width].
template <class T>
static void store_weights(const T* sums, int64_t width, int64_t taps, int64_t channels,
                          int64_t outputs, int64_t output_step, T* grad_weight) {
  int64_t c = 0, t = 0;
  for (int64_t i = 0; i < channels * taps; i += kLanes<T>) {
    const int64_t count = min_of<int64_t>(kLanes<T>, channels * taps - i);
    Vec<T> square[kLanes<T>];
    for (int j = 0; j < kLanes<T>; ++j) {
      square[j] = j < count ? load(sums + (t * channels + c) * width) : Vec<T>{};
      if (++t == taps) t = 0, ++c;
    }
    transpose<T>(square);
    for (int64_t k = 0; k < min_of<int64_t>(outputs, kLanes<T>); ++k)
      store_first(grad_weight + k * output_step + i, count, square[k]);
  }
}

// A position of a 1x1 filter is a position of a plane.
static ConvShape flattened(const ConvShape& s) {
  ConvShape flat = s;
  bool whole = true;
  for (int axis = 0; axis < 3; ++axis)
    whole &=
        s.kernel[axis] == 1 && s.stride[axis] == 1 && s.pad[axis] == 0 && s.in[axis] == s.out[axis];
  if (!whole) return s;
  for (int axis = 0; axis < 2; ++axis) flat.in[axis] = flat.out[axis] = 1;
  flat.in[2] = flat.out[2] = s.in_size();
  return flat;
}

template <class T>
void conv_wgrad_implicit_gemm(const ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  const ConvShape s = flattened(args.shape);
  const ImplicitGemmGradient plan(s);
  const TapPlaces<T> places(s, plan);
  const int64_t taps = s.kernel_size(), inputs = s.c_per_group(), outputs = s.k_per_group();
  const int64_t out = s.out_size(), weights = s.weight_elems();
  const int64_t c_blocks = ceil_div(inputs, plan.channels);
  const int64_t k_blocks = ceil_div(outputs, plan.outputs);
  T* sums_of_parts = plan.parts > 1 ? args.workspace : args.result;
  parallel_for(plan.parts * s.groups * c_blocks * k_blocks, [&](int64_t task) {
    const int64_t k0 = task % k_blocks * plan.outputs,
                  c0 = task / k_blocks % c_blocks * plan.channels;
    const int64_t g = task / (k_blocks * c_blocks) % s.groups;
    const int64_t part = task / (k_blocks * c_blocks * s.groups);
    const int64_t channels = min_of(plan.channels, inputs - c0);
    const int64_t count = min_of(plan.outputs, outputs - k0);
    const int64_t vectors = ceil_div(count, kLanes<T>), panels = ceil_div(vectors, Tile::kVectors);
    const int64_t rows = channels * taps, groups = ceil_div(rows, Tile::kRows);
    // Panels of about the same width: the first vector of panel p.
    const auto vector_of = [&](int64_t p) { return vectors * p / panels; };
    const int64_t padded_rows = groups * Tile::kRows;
    Scratch<T> sums(padded_rows * vectors * kLanes<T>);
    Scratch<T> panel(plan.rows * plan.columns * Tile::kCols);
    Scratch<T> padded(places.in_place ? 0 : channels * places.channel);
    Scratch<RowGroup<T>> group(groups);
    for (int64_t i = 0; i < groups; ++i)
      group[i] = RowGroup<T>(s, places, channels, i * Tile::kRows);
    for (int64_t i = 0; i < padded_rows * vectors * kLanes<T>; i += kLanes<T>)
      store(&sums[i], Vec<T>{});
    for (int64_t index = plan.bands * part / plan.parts;
         index < plan.bands * (part + 1) / plan.parts; ++index) {
      const Band band = band_of(s, plan, index);
      const T* x = args.x + (band.image * s.c + g * inputs + c0) * s.in_size();
      if (places.in_place)
        x += TapPlaces<T>::origin(s, band);
      else
        pad_channels(s, places, band, x, channels, padded.get());
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t first = vector_of(p) * kLanes<T>,
                      width = vector_of(p + 1) * kLanes<T> - first;
        const T* grad_y = args.grad_y + (band.image * s.k + g * outputs + k0 + first) * out +
                          (band.o0 * s.out[1] + band.o1) * s.out[2] + band.o2;
        for (int64_t j = 0; j < width; j += kLanes<T>)
          pack_panel<kLanes<T>>(grad_y + j * out, out, 1, count - first - j,
                                band.rows * band.columns, &panel[j], width);
        for (int64_t i = 0; i < groups; ++i)
          group[i].multiply(s, places, band, places.in_place ? x : padded.get(), panel.get(), width,
                            &sums[first * padded_rows + i * Tile::kRows * width]);
      }
    }
    T* place = sums_of_parts + part * weights + ((g * outputs + k0) * inputs + c0) * taps;
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t first = vector_of(p) * kLanes<T>, width = vector_of(p + 1) * kLanes<T> - first;
      for (int64_t j = 0; j < width; j += kLanes<T>)
        store_weights(&sums[first * padded_rows + j], width, taps, channels, count - first - j,
                      inputs * taps, place + (first + j) * inputs * taps);
    }
  });
  if (plan.parts > 1) add_parts<T>(sums_of_parts, plan.parts, weights, args.result);
}

LAMINA_INSTANTIATE(conv_wgrad_implicit_gemm, ConvArgs)

LAMINA_CPU_NAMESPACE_END
