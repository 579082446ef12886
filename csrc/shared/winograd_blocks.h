// How the CPU kernels cut a Winograd convolution into tasks and blocks of tiles. Dilation d splits
// a plane into phases, the positions that are equal modulo d: each is a dense convolution. Tiles
// count in the order image, phase of the row, tile row, phase of the column, tile column.
//
// Along a third axis the sum is a direct one. It joins the sum over the channels: planes count as
// images of y, and an input channel once for every tap of that axis. Likewise a long filter of one
// row or column is cut into parts of `part_taps` taps, which read x at different places.
#pragma once

#include "ops/conv.h"

namespace lamina::winograd {

// Elements of a transformed tile lie this many more floats apart than they need: out of each
// other's cache sets.
inline constexpr int64_t kSkew = 16;

struct PlaneShape : ops::ConvShape {  // of the convolution of planes
  int64_t depth_in, depth_out, depth_taps, depth_stride, depth_pad, depth_dilation;
  int64_t taps;                           // of the filter in a plane
  int64_t parts = 1;                      // of the filter
  int64_t part_down = 0, part_right = 0;  // from one part's input to the next one's

  constexpr explicit PlaneShape(const ops::ConvShape& s, int64_t part_taps = 0)
      : ops::ConvShape(s),
        depth_in(s.in[0]),
        depth_out(s.out[0]),
        depth_taps(s.kernel[0]),
        depth_stride(s.stride[0]),
        depth_pad(s.pad[0]),
        depth_dilation(s.dilation[0]),
        taps(s.kernel[1] * s.kernel[2]) {
    n *= depth_out, c *= depth_taps;
    in[0] = out[0] = kernel[0] = stride[0] = dilation[0] = 1, pad[0] = 0;
    if (part_taps == 0) return;
    const int axis = kernel[1] > 1 ? 1 : 2;
    parts = (taps + part_taps - 1) / part_taps, c *= parts, kernel[axis] = part_taps;
    (axis == 1 ? part_down : part_right) = part_taps * dilation[axis];
  }
};

// The taps of a part, 3 or 4, that F(4, 3) or F(3, 4) needs fewer products for: 6 for 4 outputs and
// 3 taps, or for 3 outputs and 4 taps.
constexpr int64_t best_part_taps(const ops::ConvShape& s) {
  const int64_t taps = s.kernel[1] * s.kernel[2];
  return (taps + 2) / 3 * 3 <= (taps + 3) / 4 * 4 ? 3 : 4;
}

struct Tiles {
  int64_t elements;            // of a transformed tile
  int64_t rows_h, columns_w;   // from a tile to the next one of its phase, in outputs
  int64_t phases_h, phases_w;  // of an output plane
  int64_t tiles_h, tiles_w;    // of the largest phase
  int64_t all;                 // tiles of all images
  int64_t depth;               // images that are planes of one image

  // Tiles of out_rows x out_columns outputs.
  constexpr Tiles(const PlaneShape& s, int64_t out_rows, int64_t out_columns)
      : elements((out_rows + s.kernel[1] - 1) * (out_columns + s.kernel[2] - 1)),
        rows_h(out_rows * s.dilation[1]),
        columns_w(out_columns * s.dilation[2]),
        phases_h(s.dilation[1] < s.out[1] ? s.dilation[1] : s.out[1]),
        phases_w(s.dilation[2] < s.out[2] ? s.dilation[2] : s.out[2]),
        tiles_h((s.out[1] + rows_h - 1) / rows_h),
        tiles_w((s.out[2] + columns_w - 1) / columns_w),
        all(s.n * phases_h * tiles_h * phases_w * tiles_w),
        depth(s.depth_out) {}

  // Panels of the products round a group's outputs up by at most 7.
  constexpr int64_t filter_elements(const ops::ConvShape& s) const {
    return elements * (s.groups * (s.k_per_group() + 7) * s.c_per_group() + kSkew);
  }
};

// fprop and dgrad: a task takes a group of tiles and all filters or, where the tiles are few or all
// filters together too large for the caches, some filters and a chunk of tiles: as many as fit.
struct Groups : Tiles {
  int64_t tiles;   // of a group
  bool by_filter;  // tasks transform filters of their own and share the inputs
  int64_t chunk;   // groups whose inputs are transformed at a time for them

  constexpr Groups(const PlaneShape& s, int64_t out_rows, int64_t out_columns)
      : Tiles(s, out_rows, out_columns),
        tiles(all < 24 * kWide ? kNarrow : kWide),
        by_filter((all < 12 * kNarrow && !few_filters(s)) || all < s.k_per_group()),
        chunk(count()) {
    constexpr int64_t kLarge = int64_t{1} << 21;  // elements that crowd a shared cache
    if (!by_filter && filter_elements(s) < kLarge) return;
    by_filter = true;
    const int64_t chunks = (elements * s.c * all + kLarge - 1) / kLarge;
    chunk = chunks > 0 ? (count() + chunks - 1) / chunks : 1;
  }

  // Each task would read the inputs of all tiles for them.
  constexpr bool few_filters(const PlaneShape& s) const {
    return s.parts > 1 && 4 * s.k <= all && all >= 4 * kNarrow;
  }
  constexpr int64_t count() const { return (all + tiles - 1) / tiles; }
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return by_filter ? elements * (s.c * chunk * tiles + kSkew) : filter_elements(s);
  }

  static constexpr int64_t kWide = 48, kNarrow = 32;  // both in whole vectors of any width
};

// wgrad: the transformed inputs and output gradients of a block of tiles are multiplied and added
// to all transformed filters at once.
struct Blocks : Tiles {
  int64_t block;                     // tiles of a block, a multiple of kUnit
  int64_t input_elements;            // at most, of a block
  int64_t output_gradient_elements;  // likewise

  constexpr Blocks(const PlaneShape& s, int64_t out_rows, int64_t out_columns)
      : Tiles(s, out_rows, out_columns) {
    // All filters are read and written once a block: few of them stay in L2, beside small blocks.
    constexpr int64_t kFewFilters = int64_t{1} << 17, kWidestPanel = 48;
    const int64_t filters = s.k * s.c_per_group();
    const bool few = elements * filters <= kFewFilters;
    const int64_t capacity = int64_t{1} << (few ? 18 : 21), least = (few ? 3 : 15) * kUnit;
    const int64_t per_tile = elements * (s.c + s.k);
    const int64_t fitting = capacity / (per_tile > 0 ? per_tile : 1) / kUnit * kUnit;
    const int64_t covering = (all + kUnit - 1) / kUnit * kUnit;
    block = fitting > least ? fitting : least;
    if (block > covering) block = covering;
    if (block > 0) block = per_block(all, (all + block - 1) / block);
    input_elements = elements * (s.groups * (s.c_per_group() + kWidestPanel) * block + kSkew);
    output_gradient_elements = elements * (s.groups * (s.k_per_group() + 7) * block + kSkew);
  }

  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    const int64_t block_elements = input_elements + output_gradient_elements;
    if (all <= block) return block_elements;
    return block_elements +
           elements * (s.groups * (s.k_per_group() + 7) * (s.c_per_group() + 15) + kSkew);
  }

  static constexpr int64_t kUnit = 16;

 private:
  static constexpr int64_t per_block(int64_t tiles, int64_t blocks) {
    return blocks > 0 ? (tiles + blocks * kUnit - 1) / (blocks * kUnit) * kUnit : 0;
  }
};

}  // namespace lamina::winograd
