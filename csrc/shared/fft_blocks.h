// Blocks of Fourier tiles for the CUDA kernels, the frequencies of a tile, and where the transforms
// lie in the workspace (elements of float or double).
#pragma once

#include "shared/fft_tiles.h"
#include "shared/winograd_tiles.h"

namespace lamina {

// Of the transform X[ky][kx] of a real tile, the values that the others are conjugates of: in the
// columns 0 and width / 2 the rows up to height / 2, in the columns between them all rows.
struct FftFrequencies {
  int height, width;

  constexpr int edge() const { return 2 * (height / 2 + 1); }  // of columns 0 and width / 2
  constexpr int count() const { return edge() + height * (width / 2 - 1); }
  constexpr int row(int f) const { return f < edge() ? f / 2 : (f - edge()) % height; }
  constexpr int column(int f) const {
    return f < edge() ? f % 2 * (width / 2) : 1 + (f - edge()) / height;
  }
};

struct FftBlocks {
  FftTiles tiles;
  int64_t frequencies, image, all;       // tiles per image and in total
  int64_t block, pitch;                  // tiles of a block, and its row length in the workspace
  int64_t filter_pitch, gradient_pitch;  // row lengths of the filters' matrices
  int64_t splits, split_tiles;           // parts of a block that wgrad sums apart
  // Of one plane: planes are real parts, imaginary parts and, of left factors, the latter negated.
  int64_t filter_plane, gradient_plane, input_plane, output_plane;

  constexpr explicit FftBlocks(const ops::ConvShape& s) : tiles(s, 16) {
    constexpr int64_t kBlockElements = int64_t{1} << 24;
    constexpr int64_t kLeastBlock = 64;
    constexpr int64_t kFullGrid = 512, kLeastSplit = 256;  // thread blocks; tiles
    frequencies =
        FftFrequencies{static_cast<int>(tiles.side[0]), static_cast<int>(tiles.side[1])}.count();
    image = tiles.count[0] * tiles.count[1], all = s.n * image;
    block = kBlockElements / (2 * frequencies * (s.c + s.k)) / 32 * 32;
    if (block < kLeastBlock) block = kLeastBlock;
    if (block > all) block = all;
    pitch = winograd::round_up(block, 8);
    filter_pitch = winograd::round_up(s.k_per_group(), 4);
    gradient_pitch = winograd::round_up(s.c_per_group(), 4);
    const int64_t matrices =
        2 * frequencies * s.groups * ((s.k_per_group() + 63) / 64) * ((s.c_per_group() + 63) / 64);
    splits = matrices ? (kFullGrid + matrices - 1) / matrices : 1;
    if (splits > block / kLeastSplit) splits = block / kLeastSplit;
    if (splits < 1) splits = 1;
    split_tiles = winograd::round_up((block + splits - 1) / splits, 32);
    filter_plane = s.c_per_group() * filter_pitch,
    gradient_plane = s.k_per_group() * gradient_pitch;
    input_plane = s.c_per_group() * pitch, output_plane = s.k_per_group() * pitch;
  }

  constexpr int64_t convolve_workspace(int64_t groups) const {
    return frequencies * groups * (3 * filter_plane + 2 * input_plane + 2 * output_plane);
  }
  constexpr int64_t gradient_workspace(int64_t groups) const {
    return frequencies * groups *
           (splits * 2 * gradient_plane + 2 * input_plane + 3 * output_plane);
  }
};

}  // namespace lamina
