// Operands of device/gemm_tile.h that are matrices in memory.
#pragma once

#include "cuda/device/gemm_tile.h"

namespace lamina::cuda {

// Element (line, p) at source[line * line_step + p * depth_step], zero from `lines` and `depth` on.
// Vectors (MAP::kVector > 1) need their direction to have step 1, an extent that is a multiple of
// the vector, and aligned lines.
template <class T, class MAP>
class MatrixOperand {
 public:
  using Map = MAP;
  static constexpr size_t kTableBytes = 0;

  __device__ __forceinline__ MatrixOperand(const T* source, int64_t line_step, int64_t depth_step,
                                           int64_t lines, int64_t depth)
      : source_(source + Map::line(threadIdx.x) * line_step + Map::depth(threadIdx.x) * depth_step),
        line_step_(line_step),
        depth_step_(depth_step),
        lines_(static_cast<int>(min(lines, int64_t{Map::kLines})) - Map::line(threadIdx.x)),
        depth_(static_cast<int>(depth) - Map::depth(threadIdx.x)) {}

  __device__ __forceinline__ void prepare(int) {}

  // Where vector i of the current tile is; not to be read unless `inside`.
  __device__ __forceinline__ const T* source(int i, bool& inside) const {
    inside = Map::line_step(i) < lines_ && Map::depth_step(i) < depth_;
    return source_ + (Map::line_step(i) * line_step_ + Map::depth_step(i) * depth_step_);
  }
  __device__ __forceinline__ void fetch(Vector<T, Map::kVector> (&values)[Map::kCount]) const {
#pragma unroll
    for (int i = 0; i < Map::kCount; ++i) {
      bool inside;
      const T* const at = source(i, inside);
      values[i] = Vector<T, Map::kVector>{};
      if (inside) values[i] = load<T, Map::kVector>(at);
    }
  }
  __device__ __forceinline__ void advance() {
    source_ += Map::kDepth * depth_step_;
    depth_ -= Map::kDepth;
  }

 private:
  const T* source_;  // of this thread's first vector
  int64_t line_step_, depth_step_;
  int lines_, depth_;  // from there on
};

}  // namespace lamina::cuda
