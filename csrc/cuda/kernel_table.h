// The CUDA kernels of this library, for the registry.
#pragma once

#include <vector>

#include "ops/registry.h"

namespace lamina::cuda {

std::vector<ops::Kernel> kernel_table(const char* backend);

}  // namespace lamina::cuda
