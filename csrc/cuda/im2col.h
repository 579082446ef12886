// The unrolled input of a convolution as a matrix in memory: col[plane][r][o] = x[plane][o * stride
// - pad + r * dilation], zero outside x, for planes = images times channels; and its gradient.
#pragma once

#include "cuda/device/numeric.h"
#include "ops/conv.h"

namespace lamina::cuda {

template <class T>
void im2col(const ops::ConvShape& shape, int64_t planes, const T* x, T* col);

// x[plane][i] = bias[plane % channels] (or 0) + the sum of its places in col, and the epilogue.
template <class T, class Col>
void col2im(const ops::ConvShape& shape, int64_t planes, const Col* col, const T* bias,
            int64_t channels, const ops::Epilogue<T>& epilogue, T* x);

}  // namespace lamina::cuda
