// How many images the im2col convolution of a GPU unrolls at a time, and the workspace that takes:
// enough to fill the GPU with one product, and no more than kElements unless one image needs it.
#pragma once

#include <cstdint>

#include "ops/conv.h"

namespace lamina {

struct Im2colChunk {
  int64_t images;
  int64_t col_elems;  // of an image
  int64_t sum_elems;  // of the weight gradient in full precision, rounded up to whole vectors

  explicit constexpr Im2colChunk(const ops::ConvShape& s)
      : images(1),
        col_elems(s.c * s.kernel_size() * s.out_size()),
        sum_elems((s.weight_elems() + 63) / 64 * 64) {
    constexpr int64_t kElements = int64_t{1} << 25;
    if (col_elems > 0 && kElements / col_elems > 1) images = kElements / col_elems;
    if (images > s.n) images = s.n;
  }
  // float32 at least: the columns of dgrad, the sums of wgrad.
  constexpr int64_t workspace_elements(ops::ConvPass pass) const {
    return images * col_elems + (pass == ops::ConvPass::wgrad ? sum_elems : 0);
  }
};

}  // namespace lamina
