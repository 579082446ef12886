// The matrix product of ops/gemm.h for other kernels of this backend.
#pragma once

#include "cuda/device/numeric.h"
#include "ops/gemm.h"

namespace lamina::cuda {

// `sums`: null, or the array that takes the place of c, so that results are not rounded to T and
// meet no epilogue.
template <class T>
void gemm(const ops::GemmArgs<T>& args, Acc<T>* sums = nullptr);

}  // namespace lamina::cuda
