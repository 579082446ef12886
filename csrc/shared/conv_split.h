// How the direct gradients of a convolution on a GPU are split: many more products than results, so
// parts of the sum run side by side, and a second pass adds the parts in order. The split depends
// on the shape alone, and results therefore too.
#pragma once

#include <cstdint>

#include "ops/conv.h"

namespace lamina {

struct ConvSplit {
  int64_t parts = 1;      // partial sums of every result; one: no second pass
  int64_t part_size = 0;  // positions (n, o) of a part

  // Of a workspace for the parts, float for 16-bit types.
  constexpr int64_t workspace_elements(int64_t results) const {
    return parts > 1 ? parts * results : 0;
  }
  // The split of a call: without a workspace there is one part.
  constexpr ConvSplit in(const void* workspace) const {
    return workspace || parts == 1 ? *this : ConvSplit{1, parts * part_size};
  }
};

// Parts enough for `tiles` blocks each to fill a large GPU, of at least `smallest` positions and of
// a multiple of `unit`: whole vectors and warps.
constexpr ConvSplit conv_split(int64_t positions, int64_t tiles, int64_t smallest,
                               int64_t unit = 32) {
  constexpr int64_t kBlocks = 1056;  // eight on each multiprocessor of the largest GPUs
  ConvSplit split;
  int64_t parts = kBlocks / (tiles > 1 ? tiles : 1);
  const int64_t most = positions / smallest;
  if (parts > most) parts = most;
  if (parts < 1) parts = 1;
  split.part_size = ((positions + parts - 1) / parts + unit - 1) / unit * unit;
  if (split.part_size > 0) split.parts = (positions + split.part_size - 1) / split.part_size;
  return split;
}

// The weight gradient: blocks of kSplitOutputs output channels times kSplitPairs (c, r).
inline constexpr int64_t kSplitOutputs = 16, kSplitPairs = 32;

constexpr ConvSplit conv_wgrad_split(const ops::ConvShape& s) {
  const int64_t outputs = (s.k_per_group() + kSplitOutputs - 1) / kSplitOutputs;
  const int64_t pairs = (s.c_per_group() * s.kernel_size() + kSplitPairs - 1) / kSplitPairs;
  return conv_split(s.n * s.out_size(), s.groups * outputs * pairs, 2048);
}

// The weight gradient by implicit GEMM, in square tiles: two blocks of 128 x 128 or four of 64 x 64
// fill a multiprocessor.
constexpr int64_t implicit_wgrad_side(const ops::ConvShape& s) {
  return s.k_per_group() > 64 && s.c_per_group() * s.kernel_size() > 64 ? 128 : 64;
}
constexpr ConvSplit implicit_wgrad_split(const ops::ConvShape& s) {
  const int64_t side = implicit_wgrad_side(s);
  const int64_t tiles_m = (s.k_per_group() + side - 1) / side;
  const int64_t tiles_n = (s.c_per_group() * s.kernel_size() + side - 1) / side;
  return conv_split(s.n * s.out_size(), s.groups * tiles_m * tiles_n * (side == 128 ? 4 : 2), 1024);
}

// The bias gradient: a block a channel.
constexpr ConvSplit conv_bgrad_split(const ops::ConvShape& s) {
  return conv_split(s.n * s.out_size(), s.k, 4096);
}

}  // namespace lamina
