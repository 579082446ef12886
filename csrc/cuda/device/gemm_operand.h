// Operands of device/gemm_tile.h that are matrices in memory.
#pragma once

#include "cuda/device/gemm_tile.h"

namespace lamina::cuda {

// Element (line, p) at source[line * line_step + p * depth_step], zero from `lines` and `depth` on.
// Vectors (MAP::kVector > 1) need their direction to have step 1, an extent that is a multiple of
// the vector, and aligned lines. Step is unsigned where all offsets of a tile that exist fit it.
template <class T, class MAP, class Step = int64_t>
class MatrixOperand {
 public:
  using Map = MAP;
  static constexpr size_t kTableBytes = 0;

  __device__ __forceinline__ MatrixOperand(const T* source, Step line_step, Step depth_step,
                                           int64_t lines, int64_t depth)
      : source_(source + Map::line(threadIdx.x) * line_step + Map::depth(threadIdx.x) * depth_step),
        line_step_(line_step),
        depth_step_(depth_step),
        lines_(static_cast<int>(min(lines, int64_t{Map::kLines})) - Map::line(threadIdx.x)),
        depth_(static_cast<int>(depth) - Map::depth(threadIdx.x)) {
    if (kOneLine && lines_ <= 0) depth_ = 0;  // one number says what is inside
  }

  __device__ __forceinline__ void prepare(int) {}

  // Where vector i of the current tile is; not to be read unless `inside`.
  __device__ __forceinline__ const T* source(int i, bool& inside) const {
    inside = (kOneLine || Map::line_step(i) < lines_) & (Map::depth_step(i) < depth_);
    return source_ + (Map::line_step(i) * line_step_ + Map::depth_step(i) * depth_step_);
  }
  __device__ __forceinline__ void advance() {
    source_ += Map::kDepth * int64_t{depth_step_};
    depth_ -= Map::kDepth;
  }

 private:
  static constexpr bool kOneLine = Map::line_step(Map::kCount - 1) == 0;  // a thread has one line

  const T* source_;  // of this thread's first vector
  Step line_step_, depth_step_;
  int lines_, depth_;  // from there on
};

}  // namespace lamina::cuda
