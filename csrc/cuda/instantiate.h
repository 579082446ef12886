// The element types every CUDA kernel is compiled for.
#pragma once

#include "cuda/device/numeric.h"

#define LAMINA_CUDA_INSTANTIATE(kernel, Args)               \
  template void kernel<float>(const ops::Args<float>&);     \
  template void kernel<double>(const ops::Args<double>&);   \
  template void kernel<float16>(const ops::Args<float16>&); \
  template void kernel<bfloat16>(const ops::Args<bfloat16>&);
