// permute: y = x with its axes in another order, as pixel and channel shuffles are after a reshape
// (Shi et al. 2016, Zhang et al. 2018). The gradient is the inverse permutation.
#pragma once

#include <cstdint>

namespace lamina::ops {

inline constexpr int kPermuteAxes = 6;

template <class T>
struct PermuteArgs {
  int64_t size[kPermuteAxes] = {};    // of the result; missing leading axes are 1
  int64_t stride[kPermuteAxes] = {};  // in x, of each axis of the result
  const T* x = nullptr;
  T* result = nullptr;

  constexpr int64_t rows() const { return size[0] * size[1] * size[2] * size[3] * size[4]; }
  // Where row `row` of the result starts in x.
  constexpr int64_t source(int64_t row) const {
    int64_t at = 0;
    for (int axis = kPermuteAxes - 2; axis >= 0; --axis) {
      at += row % size[axis] * stride[axis];
      row /= size[axis];
    }
    return at;
  }
};

}  // namespace lamina::ops
