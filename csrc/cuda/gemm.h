// The matrix product of ops/gemm.h for other kernels of this backend.
#pragma once

#include "cuda/device/numeric.h"
#include "ops/gemm.h"

namespace lamina::cuda {

template <class T>
void gemm(const ops::GemmArgs<T>& args);

}  // namespace lamina::cuda
