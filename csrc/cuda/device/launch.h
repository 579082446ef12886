// Launching kernels on the call's stream, and the arithmetic of grids.
#pragma once

#include "cuda/backend.h"
#include "cuda/device/numeric.h"

namespace lamina::cuda {

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// kernel<<<grid, block, shared_bytes>>>(arguments...) on the stream of this call; nothing for an
// empty grid. Throws if the kernel cannot start.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Arguments&&... arguments) {
  if (grid.x && grid.y && grid.z)
    simt::launch(kernel, grid, block, shared_bytes, current_stream(),
                 std::forward<Arguments>(arguments)...);
}

// The x size of a grid; blocks beyond the hardware's 2^31 - 1 are an error, not a wrap.
inline unsigned grid_size(int64_t blocks) {
  if (blocks > 0x7fffffff) throw simt::Error("a kernel would need more than 2^31 - 1 blocks");
  return static_cast<unsigned>(blocks);
}

}  // namespace lamina::cuda
