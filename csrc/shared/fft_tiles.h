// How conv `fft` cuts a stride-1 convolution into tiles of a power of two (overlap-save).
#pragma once

#include "ops/conv.h"

namespace lamina {

inline constexpr int64_t kLargestFft = 64;

struct FftTiles {
  int64_t side[2];   // height and width of a tile: 1, 16, 32 or 64
  int64_t out[2];    // outputs a tile yields: side - (kernel - 1) * dilation
  int64_t count[2];  // tiles per image
  int64_t half;      // columns of the transform of a real tile: the others are conjugates
  int64_t block;     // tiles that are transformed and multiplied together
  int64_t pitch;     // row length of their matrices, off powers of two

  static constexpr int64_t span(const ops::ConvShape& s, int axis) {
    return (s.kernel[axis] - 1) * s.dilation[axis] + 1;
  }

  // least_width: of a tile, 1 or 16.
  constexpr explicit FftTiles(const ops::ConvShape& s, int64_t least_width = 1)
      : side{}, out{}, count{} {
    constexpr int64_t kTilesPerBlock = 192;
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t extent = s.out[axis + 1], taps = span(s, axis + 1);
      if (extent == 1 && taps == 1) {
        side[axis] = axis == 1 ? least_width : 1;
      } else {  // the smallest tile at least half of which is output, or that holds everything
        side[axis] = 16;
        while (side[axis] < kLargestFft && side[axis] < 2 * taps && side[axis] < extent + taps - 1)
          side[axis] *= 2;
      }
      out[axis] = side[axis] - taps + 1;
      count[axis] = out[axis] > 0 ? (extent + out[axis] - 1) / out[axis] : 0;
    }
    half = side[1] / 2 + 1;
    if (side[1] == 1) half = 1;
    block = s.n * count[0] * count[1];
    if (block > kTilesPerBlock) block = kTilesPerBlock;
    pitch = (block + 15) / 16 * 16 + 16;
  }

  constexpr int64_t frequencies() const { return side[0] * half; }
  constexpr int64_t all(const ops::ConvShape& s) const { return s.n * count[0] * count[1]; }
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return 2 * frequencies() * (s.k * s.c_per_group() + (s.c + s.k) * pitch);
  }
};

}  // namespace lamina
