// How the CUDA Winograd convolutions cut the output: the tiles of all images in order, a block of
// them at a time, and where the transforms lie in the workspace (elements of float or double).
#pragma once

#include "ops/conv.h"

namespace lamina::winograd {

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

struct Tiles {
  int64_t elements;                      // of a transformed tile
  int64_t tiles_h, tiles_w, image, all;  // tiles: per column, per row, per image, in total
  int64_t block, pitch;                  // tiles of a block, and its row length in the workspace
  int64_t filter_pitch, gradient_pitch;  // row lengths of the filters' matrices
  int64_t splits, split_tiles;           // parts of a block that wgrad sums apart
  int64_t filter_elements, gradient_elements, input_elements, output_elements;

  // out: side of an output tile, 2 or 4.
  constexpr Tiles(const ops::ConvShape& s, int out) : elements((out + 2) * (out + 2)) {
    constexpr int64_t kBlockElements = int64_t{1} << 23;  // 32 MiB of float: stays in L2
    constexpr int64_t kLeastBlock = 1024;
    constexpr int64_t kFullGrid = 512, kLeastSplit = 256;  // thread blocks; tiles
    tiles_h = (s.out[1] + out - 1) / out, tiles_w = (s.out[2] + out - 1) / out;
    image = tiles_h * tiles_w, all = s.n * image;
    block = kBlockElements / (elements * (s.c + s.k)) / 128 * 128;
    if (block < kLeastBlock) block = kLeastBlock;
    if (block > all) block = all;
    pitch = round_up(block, 32);
    filter_pitch = round_up(s.k_per_group(), 4);
    gradient_pitch = round_up(s.c_per_group(), 4);
    const int64_t matrices =
        elements * s.groups * ((s.k_per_group() + 63) / 64) * ((s.c_per_group() + 63) / 64);
    splits = matrices ? (kFullGrid + matrices - 1) / matrices : 1;
    if (splits > block / kLeastSplit) splits = block / kLeastSplit;
    if (splits < 1) splits = 1;
    split_tiles = round_up((block + splits - 1) / splits, 32);
    filter_elements = elements * s.groups * s.c_per_group() * filter_pitch;
    gradient_elements = elements * s.k * gradient_pitch;  // of one split
    input_elements = elements * s.c * pitch;
    output_elements = elements * s.k * pitch;
  }

  constexpr int64_t staged_workspace() const {
    return filter_elements + input_elements + output_elements;
  }
  constexpr int64_t gradient_workspace() const {
    return splits * gradient_elements + input_elements + output_elements;
  }
};

}  // namespace lamina::winograd
