// Operands of device/gemm_tile.h that unroll the input of a convolution while they read it, so that
// the matrix exists only in shared memory.
//
// A line is a pixel (an output position of an image) and the depth runs over (channel, tap), or,
// for the weight gradient, the other way round. What belongs to a depth is worked out once for the
// block, by one warp and a tile ahead, in a table in shared memory; what belongs to a line once for
// the whole product. An element is then one addition and three comparisons away.
#pragma once

#include "cuda/device/fast_divide.h"
#include "cuda/device/gemm_tile.h"
#include "ops/conv.h"

namespace lamina::cuda {

// Offsets within the planes of a group and all coordinates, also those outside x, fit 31 bits.
struct UnrolledShape {
  int in[3], stride[3], pad[3], dilation[3];
  FastDivisor out[3], kernel[3], out_size, taps, channels;  // channels of a group
  int in_size;

  explicit UnrolledShape(const ops::ConvShape& s)
      : out_size(s.out_size() ? s.out_size() : 1),
        taps(s.kernel_size() ? s.kernel_size() : 1),
        channels(s.c_per_group() ? s.c_per_group() : 1),
        in_size(static_cast<int>(s.in_size())) {
    for (int axis = 0; axis < 3; ++axis) {
      in[axis] = static_cast<int>(s.in[axis]), stride[axis] = static_cast<int>(s.stride[axis]);
      pad[axis] = static_cast<int>(s.pad[axis]);
      dilation[axis] = static_cast<int>(s.dilation[axis]);
      out[axis] = FastDivisor(s.out[axis] ? s.out[axis] : 1);
      kernel[axis] = FastDivisor(s.kernel[axis] ? s.kernel[axis] : 1);
    }
  }
};

// A place in the planes of x and its coordinates, or the steps from one place to another.
struct alignas(16) UnrolledPlace {
  int offset, i[3];
};
inline constexpr int kOutside = 1 << 30;        // a coordinate that no step brings back into x
inline constexpr int kLargestExtent = 1 << 28;  // of coordinates, steps and paddings

// The first tap's place for output position o.
__device__ __forceinline__ UnrolledPlace pixel_place(const UnrolledShape& s, int o) {
  UnrolledPlace place;
  const int line = s.out[2].split(o), plane = s.out[1].divide(line);
  place.i[2] = o * s.stride[2] - s.pad[2];
  place.i[1] = (line - plane * static_cast<int>(s.out[1].divisor)) * s.stride[1] - s.pad[1];
  place.i[0] = plane * s.stride[0] - s.pad[0];
  place.offset = (place.i[0] * s.in[1] + place.i[1]) * s.in[2] + place.i[2];
  return place;
}
// The step from the first tap of channel 0 to tap r of channel c.
__device__ __forceinline__ UnrolledPlace tap_place(const UnrolledShape& s, int c, int r) {
  UnrolledPlace place;
  const int line = s.kernel[2].split(r), plane = s.kernel[1].divide(line);
  place.i[2] = r * s.dilation[2];
  place.i[1] = (line - plane * static_cast<int>(s.kernel[1].divisor)) * s.dilation[1];
  place.i[0] = plane * s.dilation[0];
  place.offset = c * s.in_size + (place.i[0] * s.in[1] + place.i[1]) * s.in[2] + place.i[2];
  return place;
}
__device__ __forceinline__ bool is_inside(const UnrolledShape& s, const UnrolledPlace& place,
                                          const UnrolledPlace& step) {
  // No branches: the comparisons chain their predicates.
  return (static_cast<unsigned>(place.i[0] + step.i[0]) < static_cast<unsigned>(s.in[0])) &
         (static_cast<unsigned>(place.i[1] + step.i[1]) < static_cast<unsigned>(s.in[1])) &
         (static_cast<unsigned>(place.i[2] + step.i[2]) < static_cast<unsigned>(s.in[2]));
}
// The steps of two tiles of (channel, tap) pairs.
template <int DEPTH>
struct TapTable {
  UnrolledPlace steps[2][DEPTH];
};

// b: lines are pixels, neighbours in memory where the stride is 1.
template <class T, class MAP>
class PixelOperand {
 public:
  using Map = MAP;
  using Table = TapTable<Map::kDepth>;
  static constexpr size_t kTableBytes = sizeof(Table);
  static_assert(Map::kAlongLines && Map::kVector == 1);

  // x: the group's planes of image 0, `image` elements apart from those of image 1; `pixel` of
  // `pixels` is this thread's.
  __device__ __forceinline__ PixelOperand(const UnrolledShape& shape, Table& table, const T* x,
                                          int64_t image, int64_t pixel, int64_t pixels, int depth)
      : shape_(shape), table_(table), depth_(depth) {
    const int64_t n = pixel / shape.out_size.divisor;
    place_ = pixel_place(shape, static_cast<int>(pixel - n * shape.out_size.divisor));
    if (pixel >= pixels) place_.i[0] = -kOutside / 2;
    x_ = x + (n * image + place_.offset);
  }

  __device__ __forceinline__ void prepare(int tile) {
    if (threadIdx.x >= Map::kDepth) return;
    const int slot = tile & 1, p = tile * Map::kDepth + static_cast<int>(threadIdx.x);
    int r = min(p, depth_ - 1);
    const int c = shape_.taps.split(r);
    UnrolledPlace step = tap_place(shape_, c, r);
    if (p >= depth_) step.i[0] = kOutside;
    table_.steps[slot][threadIdx.x] = step;
  }

  __device__ __forceinline__ const T* source(int i, bool& inside) const {
    const UnrolledPlace step = table_.steps[slot_][Map::depth(threadIdx.x) + Map::depth_step(i)];
    inside = is_inside(shape_, place_, step);
    return x_ + step.offset;
  }
  __device__ __forceinline__ void advance() { slot_ ^= 1; }

 private:
  const UnrolledShape& shape_;
  Table& table_;
  const T* x_;  // under the first tap
  UnrolledPlace place_;
  int depth_, slot_ = 0;
};

// b for the tensor cores: lines are pixels, the depth runs over (tap, channel) and vectors over
// channels, whose number they divide: one tap, one check and one store for all of a vector.
template <class T, class MAP>
class ChannelOperand {
 public:
  using Map = MAP;
  using Table = TapTable<Map::kDepth / Map::kVector>;
  static constexpr size_t kTableBytes = sizeof(Table);
  static constexpr bool kGathers = true;
  static_assert(!Map::kAlongLines && Map::line_step(Map::kCount - 1) == 0);

  // As of PixelOperand.
  __device__ __forceinline__ ChannelOperand(const UnrolledShape& shape, Table& table, const T* x,
                                            int64_t image, int64_t pixel, int64_t pixels, int depth)
      : shape_(shape), table_(table), depth_(depth) {
    const int64_t n = pixel / shape.out_size.divisor;
    place_ = pixel_place(shape, static_cast<int>(pixel - n * shape.out_size.divisor));
    if (pixel >= pixels) place_.i[0] = -kOutside / 2;
    x_ = x + (n * image + place_.offset);
  }

  __device__ __forceinline__ void prepare(int tile) {
    constexpr int kVectors = Map::kDepth / Map::kVector;
    if (threadIdx.x >= kVectors) return;
    const int slot = tile & 1;
    const int p = tile * Map::kDepth + static_cast<int>(threadIdx.x) * Map::kVector;
    int c = min(p, depth_ - Map::kVector);
    const int r = shape_.channels.split(c);
    UnrolledPlace step = tap_place(shape_, c, r);
    if (p >= depth_) step.i[0] = kOutside;
    table_.steps[slot][threadIdx.x] = step;
  }

  __device__ __forceinline__ void gather(Vector<T, Map::kVector> (&values)[Map::kCount]) const {
#pragma unroll
    for (int i = 0; i < Map::kCount; ++i) {
      const int vector = (Map::depth(threadIdx.x) + Map::depth_step(i)) / Map::kVector;
      const UnrolledPlace step = table_.steps[slot_][vector];
      values[i] = Vector<T, Map::kVector>{};
      if (is_inside(shape_, place_, step)) {
        const T* const from = x_ + step.offset;
#pragma unroll
        for (int e = 0; e < Map::kVector; ++e)
          values[i].element[e] = from[int64_t{e} * shape_.in_size];
      }
    }
  }
  __device__ __forceinline__ void advance() { slot_ ^= 1; }

 private:
  const UnrolledShape& shape_;
  Table& table_;
  const T* x_;  // channel 0 under the first tap
  UnrolledPlace place_;
  int depth_, slot_ = 0;
};

// The tables of the weight gradient: a depth of pixels, and the (channel, tap) pairs of the lines.
template <int DEPTH, int LINES>
struct PixelTable {
  UnrolledPlace steps[LINES];
  UnrolledPlace places[2][DEPTH];
  int grad_y[2][DEPTH];
};

// b of the weight gradient: lines are (channel, tap) pairs, the depth runs over pixels.
template <class T, class MAP>
class TapOperand {
 public:
  using Map = MAP;
  using Table = PixelTable<Map::kDepth, Map::kLines>;
  static constexpr size_t kTableBytes = sizeof(Table);
  static_assert(!Map::kAlongLines && Map::kVector == 1);

  // x and grad_y begin at image 0 of the block, `image_x` and `image_y` elements before image 1;
  // the depth is pixels [first_pixel, first_pixel + depth) from there. Lines from `first_line` on.
  __device__ __forceinline__ TapOperand(const UnrolledShape& shape, Table& table, const T* x,
                                        int image_x, int image_y, int first_pixel, int depth,
                                        int first_line, int lines)
      : shape_(shape),
        table_(table),
        x_(x),
        image_x_(image_x),
        image_y_(image_y),
        first_pixel_(first_pixel),
        depth_(depth) {
    for (int line = static_cast<int>(threadIdx.x); line < Map::kLines; line += Map::kThreads) {
      int r = first_line + min(line, lines - 1);
      const int c = shape.taps.split(r);
      UnrolledPlace step = tap_place(shape, c, r);
      if (line >= lines) step.i[0] = kOutside / 2;
      table.steps[line] = step;
    }
  }

  __device__ __forceinline__ void prepare(int tile) {
    if (threadIdx.x >= Map::kDepth) return;
    const int slot = tile & 1, p = tile * Map::kDepth + static_cast<int>(threadIdx.x);
    int o = first_pixel_ + min(p, depth_ - 1);
    const int n = shape_.out_size.split(o);
    UnrolledPlace place = pixel_place(shape_, o);
    place.offset += n * image_x_;
    if (p >= depth_) place.i[0] = kOutside;
    table_.places[slot][threadIdx.x] = place;
    table_.grad_y[slot][threadIdx.x] = n * image_y_ + o;
  }

  __device__ __forceinline__ const T* source(int i, bool& inside) const {
    const UnrolledPlace place = table_.places[slot_][Map::depth(threadIdx.x) + Map::depth_step(i)];
    const UnrolledPlace step = table_.steps[Map::line(threadIdx.x) + Map::line_step(i)];
    inside = is_inside(shape_, place, step);
    return x_ + (place.offset + step.offset);
  }
  __device__ __forceinline__ void advance() { slot_ ^= 1; }

 private:
  const UnrolledShape& shape_;
  Table& table_;
  const T* x_;
  int image_x_, image_y_, first_pixel_, depth_, slot_ = 0;
};

// a of the weight gradient: lines are output channels of grad_y, the depth runs over pixels;
// vectors do not cross images.
template <class T, class MAP, class Table>
class GradOperand {
 public:
  using Map = MAP;
  static constexpr size_t kTableBytes = 0;
  static_assert(!Map::kAlongLines);

  __device__ __forceinline__ GradOperand(const Table& table, const T* grad_y, unsigned plane,
                                         int lines, int depth)
      : table_(table),
        grad_y_(grad_y + static_cast<int64_t>(Map::line(threadIdx.x)) * plane),
        plane_(plane),
        lines_(lines - Map::line(threadIdx.x)),
        depth_(depth - Map::depth(threadIdx.x)) {}

  __device__ __forceinline__ void prepare(int) {}
  __device__ __forceinline__ const T* source(int i, bool& inside) const {
    const int offset = table_.grad_y[slot_][Map::depth(threadIdx.x) + Map::depth_step(i)];
    inside = (Map::line_step(i) < lines_) & (Map::depth_step(i) < depth_);
    return grad_y_ + (inside ? Map::line_step(i) * plane_ + static_cast<unsigned>(offset) : 0);
  }
  __device__ __forceinline__ void advance() {
    slot_ ^= 1;
    depth_ -= Map::kDepth;
  }

 private:
  const Table& table_;
  const T* grad_y_;
  unsigned plane_;  // unsigned, because the steps to lines that do not exist may overflow
  int lines_, depth_, slot_ = 0;
};

}  // namespace lamina::cuda
