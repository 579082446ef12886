// Threads for kernels that do the same at one position of many planes. A thread serves its position
// in plane after plane, so what depends on the position alone (divisions, windows, taps) is worked
// out once, and the loads of several planes are in flight together.
#pragma once

#include "cuda/device/launch.h"

namespace lamina::cuda {

// The grid: x runs over the positions of `together` neighbouring planes, whose elements are one
// stretch of memory; y over groups of AT_ONCE times as many planes. LANES threads share a position.
// Offset counts positions and planes: int where both are few enough (fit_int), as dividing 64 bits
// takes a loop.
template <class Offset, int AT_ONCE, int LANES = 1>
struct PlaneGrid {
  static constexpr int kThreads = 256;
  static_assert(kThreads % LANES == 0);
  static constexpr int64_t kStretch = 4096;  // a stretch is about as long, or one plane
  // About; more planes make threads loop.
  static constexpr int64_t kMaxBlocks = LANES == kThreads ? 4096 : 16384;

  Offset positions, planes, together;

  PlaneGrid(int64_t positions_of_a_plane, int64_t number_of_planes)
      : positions(static_cast<Offset>(positions_of_a_plane)),
        planes(static_cast<Offset>(number_of_planes)),
        together(1) {
    if (positions > 0)
      together = static_cast<Offset>(
          max(int64_t{1}, min(kStretch / positions, ceil_div(planes, AT_ONCE))));
  }

  dim3 size() const {
    const int64_t x = ceil_div(int64_t{together} * positions, kThreads / LANES);
    const int64_t y = ceil_div(planes, int64_t{together} * AT_ONCE);
    const int64_t most = max(int64_t{1}, min(kMaxBlocks / max(x, int64_t{1}), int64_t{65535}));
    return dim3(grid_size(x), static_cast<unsigned>(min(y, most)));
  }
};

// Whether 32 bits count the positions and planes, with room for a step beyond the last.
constexpr bool fit_int(int64_t positions, int64_t planes) {
  return (positions > planes ? positions : planes) < int64_t{1} << 29;
}

// The work of one thread: a position, and groups of AT_ONCE planes.
//
//   PlaneWalk walk(grid);
//   if (!walk.any()) return;
//   for (; walk.more(); walk.next()) ... walk.plane(k), 0 <= k < AT_ONCE ...
template <class Offset, int AT_ONCE, int LANES>
class PlaneWalk {
 public:
  Offset position;

  __device__ __forceinline__ explicit PlaneWalk(const PlaneGrid<Offset, AT_ONCE, LANES>& grid)
      : step_(grid.together), planes_(grid.planes) {
    constexpr int kOfBlock = PlaneGrid<Offset, AT_ONCE, LANES>::kThreads / LANES;
    const Offset at =
        static_cast<Offset>(blockIdx.x) * kOfBlock + static_cast<int>(threadIdx.x) / LANES;
    any_ = at < grid.together * grid.positions;
    const Offset plane = at / grid.positions;
    position = at - plane * grid.positions;
    first_ = plane + static_cast<Offset>(blockIdx.y) * step_ * AT_ONCE;
  }
  // The same for all threads of a position.
  __device__ __forceinline__ bool any() const { return any_; }
  __device__ __forceinline__ bool more() const { return first_ < planes_; }
  __device__ __forceinline__ void next() {
    first_ += static_cast<Offset>(gridDim.y) * step_ * AT_ONCE;
  }

  __device__ __forceinline__ bool has(int k) const {
    return k == 0 || first_ + k * step_ < planes_;
  }
  // Beyond the last plane the first of the group again: loads need no test, only stores.
  __device__ __forceinline__ Offset plane(int k) const {
    return has(k) ? first_ + k * step_ : first_;
  }

 private:
  Offset first_, step_, planes_;
  bool any_;
};

}  // namespace lamina::cuda
