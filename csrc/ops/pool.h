// Pooling over one to three spatial axes: every pool is a set of windows, one table an axis.
//
// Output o of an axis covers the inputs start[o] + t * step, 0 <= t < count[o], all inside the
// axis; starts and ends never decrease with o. Strided, dilated, padded, ceil-mode, adaptive,
// global and fractional pools differ only in these tables. [first[i], last[i]) are the outputs
// whose span holds input i: gradients are gathered through them, so no two threads add to one
// element.
#pragma once

#include <cstdint>

namespace lamina::ops {

struct PoolAxis {
  int64_t in = 1, out = 1, step = 1;
  const int64_t* start = nullptr;    // [out]
  const int64_t* count = nullptr;    // [out]; 0: the window lies in the padding
  const int64_t* divisor = nullptr;  // [out]; avg_pool only
  const int64_t* first = nullptr;    // [in]
  const int64_t* last = nullptr;     // [in]

  constexpr bool covers(int64_t o, int64_t i) const {
    const int64_t offset = i - start[o];
    return offset >= 0 && offset % step == 0 && offset / step < count[o];
  }
};

// max_pool  fprop  y[o] = max over the window, index[o] its first position in the plane
//           dgrad  grad_x[i] = sum of grad_y[o] over the o with index[o] = i
//           NaN wins every comparison. An empty window gives -Inf and index 0.
// avg_pool  fprop  y[o] = sum over the window / divisor, the product of the axes' divisors
//           dgrad  grad_x[i] = sum of grad_y[o] / divisor over the windows that hold i
template <class T>
struct PoolArgs {
  int64_t planes = 0;  // N * C
  PoolAxis axis[3];
  const T* x = nullptr;       // [planes][in]
  const T* grad_y = nullptr;  // [planes][out]
  T* result = nullptr;        // y [planes][out] or grad_x [planes][in]
  int64_t* index = nullptr;   // max_pool fprop: written unless null; dgrad: read. [planes][out]

  constexpr int64_t in_size() const { return axis[0].in * axis[1].in * axis[2].in; }
  constexpr int64_t out_size() const { return axis[0].out * axis[1].out * axis[2].out; }
};

// max_unpool  fprop  y[index[i]] = x[i], zero elsewhere; a later i overwrites an earlier one
//             dgrad  grad_x[i] = grad_y[index[i]]
// `bad` gets the first position whose index is outside the output plane, whose value goes nowhere,
// or -1.
template <class T>
struct UnpoolArgs {
  int64_t planes = 0, in_size = 0, out_size = 0;
  const T* source = nullptr;  // x [planes][in_size] or grad_y [planes][out_size]
  const int64_t* index = nullptr;
  T* result = nullptr;
  int64_t* bad = nullptr;
};

template <class T>
constexpr int64_t first_bad_index(const UnpoolArgs<T>& args) {
  for (int64_t i = 0; i < args.planes * args.in_size; ++i)
    if (args.index[i] < 0 || args.index[i] >= args.out_size) return i;
  return -1;
}

}  // namespace lamina::ops
