// The convolution input as a matrix: col[c r][o] = x[c][o * stride - pad + r * dilation], zero
// outside x, for the channels of one group of one image.
#pragma once

#include "cpu/simd.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Output columns [first, last) along one axis whose tap at `offset` (= r * dilation - pad) is
// inside.
struct InsideRange {
  int64_t first, last;
};
LAMINA_INLINE InsideRange inside_range(int64_t offset, int64_t stride, int64_t in, int64_t out) {
  const int64_t first = offset >= 0 ? 0 : ceil_div(-offset, stride);
  const int64_t last = in > offset ? (in - 1 - offset) / stride + 1 : 0;
  return {min_of(first, out), max_of(min_of(last, out), min_of(first, out))};
}

// Row (c, r) of the matrix, output positions [begin, end) of the flattened out[0..2].
template <class T>
static void im2col_row(const ops::ConvShape& s, const T* x, int64_t row, int64_t begin, int64_t end,
                       T* destination) {
  const int64_t taps = s.kernel_size(), c = row / taps, r = row % taps;
  const int64_t r0 = r / (s.kernel[1] * s.kernel[2]), r1 = r / s.kernel[2] % s.kernel[1];
  const int64_t offset2 = r % s.kernel[2] * s.dilation[2] - s.pad[2];
  const InsideRange inside = inside_range(offset2, s.stride[2], s.in[2], s.out[2]);
  for (int64_t o = begin; o < end;) {
    const int64_t o2 = o % s.out[2], line = o / s.out[2];
    const int64_t count = min_of(s.out[2] - o2, end - o);  // the rest of this output row
    const int64_t i1 = line % s.out[1] * s.stride[1] - s.pad[1] + r1 * s.dilation[1];
    const int64_t i0 = line / s.out[1] * s.stride[0] - s.pad[0] + r0 * s.dilation[0];
    const bool row_inside = i0 >= 0 && i0 < s.in[0] && i1 >= 0 && i1 < s.in[1];
    const int64_t first = row_inside ? min_of(max_of<int64_t>(inside.first - o2, 0), count) : count;
    const int64_t last = row_inside ? min_of(max_of(inside.last - o2, first), count) : count;
    for (int64_t j = 0; j < first; ++j) destination[j] = 0;
    if (first < last) {
      const T* source = x + ((c * s.in[0] + i0) * s.in[1] + i1) * s.in[2] + offset2;
      if (s.stride[2] == 1)
        __builtin_memcpy(destination + first, source + o2 + first, sizeof(T) * (last - first));
      else
        for (int64_t j = first; j < last; ++j) destination[j] = source[(o2 + j) * s.stride[2]];
    }
    for (int64_t j = last; j < count; ++j) destination[j] = 0;
    destination += count, o += count;
  }
}

LAMINA_CPU_NAMESPACE_END
