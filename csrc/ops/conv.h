// conv: cross-correlation over one to three spatial axes, and its gradients.
//
//   fprop  y[n,k,o]  = sum over c,r of x[n,c,i] * weight[k,c,r]      (+ bias[k])
//   dgrad  dx[n,c,i] = sum over k,o,r of dy[n,k,o] * weight[k,c,r]   (+ bias[c])
//   wgrad  dw[k,c,r] = sum over n,o of dy[n,k,o] * x[n,c,i]
//   bgrad  db[k]     = sum over n,o of dy[n,k,o]
//
// with i = o*stride - pad + r*dilation.
// Terms whose i falls outside x are zero. o, i, r each stand for three coordinates (depth, height,
// width); missing leading axes have extent 1. With g groups, k of group j sees the c of group j
// only. fprop and dgrad store f(the above + residual), see ops/epilogue.h. A transposed convolution
// is dgrad with the roles renamed (its bias is added by dgrad).
#pragma once

#include <cstdint>

#include "ops/epilogue.h"
#include "ops/packed_filters.h"
#include "ops/precision.h"

namespace lamina::ops {

struct ConvShape {
  int64_t n = 0, c = 0, k = 0, groups = 1;
  int64_t in[3] = {1, 1, 1};      // D, H, W of x
  int64_t kernel[3] = {1, 1, 1};  // T, R, S of the filter
  int64_t out[3] = {1, 1, 1};     // O, P, Q of y
  int64_t stride[3] = {1, 1, 1};
  int64_t pad[3] = {0, 0, 0};  // low side; the high side is implied by `out`
  int64_t dilation[3] = {1, 1, 1};

  constexpr int64_t c_per_group() const { return c / groups; }
  constexpr int64_t k_per_group() const { return k / groups; }
  constexpr int64_t in_size() const { return in[0] * in[1] * in[2]; }
  constexpr int64_t kernel_size() const { return kernel[0] * kernel[1] * kernel[2]; }
  constexpr int64_t out_size() const { return out[0] * out[1] * out[2]; }
  constexpr int64_t x_elems() const { return n * c * in_size(); }
  constexpr int64_t weight_elems() const { return k * c_per_group() * kernel_size(); }
  constexpr int64_t y_elems() const { return n * k * out_size(); }
  // Multiply-adds of the direct sum, padding taps counted: the usual GFLOP/s are 2 * macs / time.
  constexpr int64_t macs() const { return y_elems() * c_per_group() * kernel_size(); }
};

enum class ConvPass { fprop, dgrad, wgrad, bgrad };

// The operands a pass reads and the one it writes; the others are null.
template <class T>
struct ConvArgs {
  ConvShape shape;
  const T* x = nullptr;                // [n][c][in]
  const T* weight = nullptr;           // [k][c / groups][kernel]
  const T* bias = nullptr;             // fprop: [k] or null; dgrad: [c] or null
  const T* grad_y = nullptr;           // [n][k][out]
  T* result = nullptr;                 // y, grad_x, grad_weight or grad_bias
  T* workspace = nullptr;              // conv_workspace_bytes of the algorithm, 64-byte aligned
  Epilogue<T> epilogue;                // fprop and dgrad
  PackedFilters<T>* packed = nullptr;  // or null; of conv_packed_layout
  Float32Precision precision = Float32Precision::highest;
};

}  // namespace lamina::ops
