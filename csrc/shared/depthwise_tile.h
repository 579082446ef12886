// The tile of the depthwise convolutions on a GPU: what a block computes, and the box of the source
// that it needs in shared memory for that.
#pragma once

#include <cstdint>

#include "ops/conv.h"
#include "shared/conv_split.h"

namespace lamina {

struct DepthwiseTile {
  static constexpr int64_t kThreads = 256;
  static constexpr int64_t kPreferred = 4096, kLargest = 12288;  // elements of shared memory
  static constexpr int64_t kLargestStride = 32;                  // of an input gradient

  bool gather;                   // an input gradient at a stride: every result has taps of its own
  int64_t size[2];               // H and W of the result
  int64_t stride[2], reach[2];   // of the source; the filter's extent less one
  int64_t taps;                  // of one depth
  int64_t strip;                 // rows of a thread
  int64_t cols, strips, planes;  // threads of a block

  constexpr DepthwiseTile(const ops::ConvShape& s, bool gradient)
      : gather(gradient && (s.stride[1] != 1 || s.stride[2] != 1)),
        size{gradient ? s.in[1] : s.out[1], gradient ? s.in[2] : s.out[2]},
        stride{gradient && !gather ? 1 : s.stride[1], gradient && !gather ? 1 : s.stride[2]},
        reach{(s.kernel[1] - 1) * s.dilation[1], (s.kernel[2] - 1) * s.dilation[2]},
        taps(s.kernel[1] * s.kernel[2]),
        strip(size[0] < 4 ? 1
              : gather    ? 4
                          : 8),
        cols(0),
        strips(0),
        planes(0) {
    const int64_t widest = strip == 1 ? kThreads : kThreads / 2;
    for (int64_t& extent : size)
      if (extent < 1) extent = 1;
    const int64_t pieces = up(size[1], widest);
    cols = up(up(size[1], pieces), 8) * 8;  // pieces begin at whole sectors
    if (cols > size[1]) cols = size[1];
    fill();
    while (elements() > kPreferred && (planes > 1 || strips > 1 || cols > 32)) {
      if (planes > 1) {
        --planes;
      } else if (strips > 1) {
        --strips;
      } else {
        cols = cols > 64 ? (cols + 15) / 16 * 8 : 32;
        fill();
      }
    }
  }

  constexpr int64_t rows() const { return strips * strip; }
  // The box of the source; a gather's first row and column may lie one below the first that is hit.
  constexpr int64_t box_rows() const { return box(0, rows()); }
  constexpr int64_t box_cols() const { return box(1, cols); }
  // Elements from row to row of the box: where it can be, so that the strips of a warp, `strip`
  // rows apart, continue each other's banks of shared memory.
  constexpr int64_t box_pitch() const {
    const int64_t least = box_cols(), rows_apart = gather ? strip : strip * stride[0];
    for (int64_t pitch = least; pitch < least + 4; ++pitch)
      if ((pitch * rows_apart - cols) % 32 == 0) return pitch;
    return least;
  }
  constexpr int64_t elements() const { return planes * (box_rows() * box_pitch() + taps); }
  constexpr bool fits() const { return elements() <= kLargest; }
  constexpr int64_t tiles() const { return up(size[0], rows()) * up(size[1], cols); }

 private:
  static constexpr int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }
  constexpr int64_t box(int axis, int64_t results) const {
    if (gather) return (results - 1 + reach[axis]) / stride[axis] + 2;
    return (results - 1) * stride[axis] + reach[axis] + 1;
  }
  // As many rows, then planes, as the threads allow.
  constexpr void fill() {
    strips = up(size[0], strip);
    if (strips > kThreads / cols) strips = kThreads / cols;
    planes = kThreads / (cols * strips);
    if (planes > 64) planes = 64;
  }
};

// The weight gradient: a block walks the tiles of y of one channel, of several images and depths at
// a time, and keeps a sum for each tap and warp beside the box.
struct DepthwiseSplit {
  DepthwiseTile tile;
  int64_t units;  // tiles of a channel
  int64_t elements;
  ConvSplit split;  // of the units

  constexpr explicit DepthwiseSplit(const ops::ConvShape& s)
      : tile(s, false), units(0), elements(0) {
    const int64_t planes = s.n * s.out[0];
    if (tile.planes > planes) tile.planes = planes > 1 ? planes : 1;
    units = (planes + tile.planes - 1) / tile.planes * tile.tiles();
    elements = tile.planes * tile.box_rows() * tile.box_pitch() +
               DepthwiseTile::kThreads / 32 * s.kernel_size();
    split = conv_split(units, s.k, 2, 1);
  }
  constexpr bool fits() const { return elements <= DepthwiseTile::kLargest; }
};

}  // namespace lamina
