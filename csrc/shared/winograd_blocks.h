// How the CPU kernels cut a Winograd convolution: the tiles of all images in order, a block of them
// at a time, so that a block's transformed inputs stay within the caches.
#pragma once

#include "ops/conv.h"

namespace lamina::winograd {

struct Blocks {
  static constexpr int64_t kPanel = 48;  // a multiple of every instruction set's panel of tiles

  int64_t elements;                  // of a transformed tile
  int64_t tiles_h, tiles_w, all;     // of an output plane; of all images
  int64_t block;                     // tiles of a block, a multiple of kPanel
  int64_t filter_elements;           // at most, of all filters transformed
  int64_t input_elements;            // at most, of a block of inputs
  int64_t output_gradient_elements;  // at most, of a block of output gradients

  // Tiles of out_rows x out_columns outputs of a 3x3 filter. The weight gradient adds to all
  // transformed filters after every block, and therefore wants larger ones.
  constexpr Blocks(const ops::ConvShape& s, int64_t out_rows, int64_t out_columns, bool gradient)
      : elements((out_rows + 2) * (out_columns + 2)),
        tiles_h((s.out[1] + out_rows - 1) / out_rows),
        tiles_w((s.out[2] + out_columns - 1) / out_columns),
        all(s.n * tiles_h * tiles_w) {
    constexpr int64_t kElements = int64_t{1} << 21, kGradientElements = int64_t{1} << 21;
    const int64_t per_tile = elements * (gradient ? s.c + s.k : s.c);
    const int64_t fitting = (gradient ? kGradientElements : kElements) / (per_tile > 0 ? per_tile : 1);
    const int64_t least = gradient ? 5 * kPanel : kPanel;
    block = (fitting > least ? fitting : least) / kPanel * kPanel;
    const int64_t covering = (all + kPanel - 1) / kPanel * kPanel;
    if (block > covering) block = covering;
    // Panels round the channels up to at most 8 outputs and kPanel inputs; kSkew keeps the elements
    // of a tile out of each other's cache sets.
    filter_elements = elements * (s.groups * (s.k_per_group() + 7) * s.c_per_group() + kSkew);
    const int64_t inputs = gradient ? s.groups * (s.c_per_group() + kPanel) : s.c;
    input_elements = elements * (inputs * block + kSkew);
    output_gradient_elements =
        gradient ? elements * (s.groups * (s.k_per_group() + 7) * block + kSkew) : 0;
  }

  static constexpr int64_t kSkew = 16;
  static constexpr int64_t kSharedFilters = int64_t{1} << 20;  // more are not written for all tasks

  constexpr int64_t workspace_elements() const {
    return filter_elements + input_elements + output_gradient_elements;
  }
};

}  // namespace lamina::winograd
