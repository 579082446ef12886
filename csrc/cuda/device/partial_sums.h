// The second pass of a split sum: the parts of every result, added in order.
#pragma once

#include "cuda/device/launch.h"

namespace lamina::cuda {

// result[i] = the sum over parts of partial[part][i].
template <class T>
__global__ void __launch_bounds__(256)
    partial_sums_kernel(const Acc<T>* partial, T* result, int64_t count, int64_t parts) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= count) return;
  Acc<T> sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partial[part * count + i];
  result[i] = narrow<T>(sum);
}

template <class T>
void add_partial_sums(const Acc<T>* partial, T* result, int64_t count, int64_t parts) {
  launch(partial_sums_kernel<T>, grid_size(ceil_div(count, 256)), 256, 0, partial, result, count,
         parts);
}

}  // namespace lamina::cuda
