// Non-maximum suppression (ops/roi.h).
//
// Method        the overlaps within each group of 256 boxes as bits, all groups at once; then group
//               after group: every block walks the group's bits in order, word by word, and removes
//               what the boxes that stay overlap among its own later ones. Memory grows with the
//               boxes, not with their pairs.
// Partitioning  a block a group of boxes.
// Numerics      overlaps in double, as on the CPU: the same boxes stay.
#include "cuda/device/launch.h"
#include "cuda/device/reduce.h"
#include "cuda/instantiate.h"
#include "ops/roi.h"

namespace lamina::cuda {

using ops::NmsArgs;

static constexpr int kGroup = 256;  // boxes, threads
static constexpr int kBits = 64, kWords = kGroup / kBits;
using Word = unsigned long long;

template <class T>
struct Corners {
  Acc<T> x1, y1, x2, y2;

  __device__ __forceinline__ double area() const {
    return (static_cast<double>(x2) - static_cast<double>(x1)) *
           (static_cast<double>(y2) - static_cast<double>(y1));
  }
};

// A group's boxes in shared memory, corner by corner: lanes with boxes side by side meet different
// banks, also when they store what they read in one piece.
template <class T>
struct Group {
  static constexpr int kPitch = kGroup + 32 / 4;
  T corner[4 * kPitch];

  // By all threads of the block, `count` boxes from `boxes`.
  __device__ __forceinline__ void fetch(const T* boxes, int count) {
    for (int e = threadIdx.x; e < count * 4; e += kGroup) corner[e % 4 * kPitch + e / 4] = boxes[e];
  }
  __device__ __forceinline__ Corners<T> box(int i) const {
    return {widen(corner[i]), widen(corner[kPitch + i]), widen(corner[2 * kPitch + i]),
            widen(corner[3 * kPitch + i])};
  }
};

// Whether intersection over union is above the threshold, in double as on the CPU.
template <class T>
__device__ __forceinline__ bool overlap(const Corners<T>& a, const Corners<T>& b,
                                        double threshold) {
  const double width = static_cast<double>(a.x2 < b.x2 ? a.x2 : b.x2) -
                       static_cast<double>(a.x1 > b.x1 ? a.x1 : b.x1);
  const double height = static_cast<double>(a.y2 < b.y2 ? a.y2 : b.y2) -
                        static_cast<double>(a.y1 > b.y1 ? a.y1 : b.y1);
  const double shared = (width > 0 ? width : 0) * (height > 0 ? height : 0);
  // Most pairs do not meet; a division is the dearest step.
  if (!(shared > 0) && threshold >= 0) return false;
  return shared / (a.area() + b.area() - shared) > threshold;
}

// masks [groups][kWords][kGroup]: bit j of box i tells whether it overlaps box j of its group, j >
// i.
template <class T>
__global__ void __launch_bounds__(kGroup)
    overlap_kernel(const NmsArgs<T> args, Word* masks, uint8_t* alive) {
  __shared__ Group<T> group;
  const int64_t first = int64_t{blockIdx.x} * kGroup;
  const int count = static_cast<int>(min(args.n - first, int64_t{kGroup}));
  group.fetch(args.boxes + first * 4, count);
  __syncthreads();
  const int i = threadIdx.x;
  if (i >= count) return;
  const Corners<T> box = group.box(i);
  for (int w = 0; w < kWords; ++w) {
    Word bits = 0;
    for (int j = max(w * kBits, i + 1); j < min((w + 1) * kBits, count); ++j)
      if (overlap(box, group.box(j), args.threshold)) bits |= Word{1} << j % kBits;
    masks[(int64_t{blockIdx.x} * kWords + w) * kGroup + i] = bits;
  }
  alive[first + i] = 1;
}

// Settles the group that starts at `first`, in every block alike, and removes what its boxes
// overlap among the later ones: those of one block. alive[] of the group is final before.
template <class T>
__global__ void __launch_bounds__(kGroup)
    suppress_kernel(const NmsArgs<T> args, int64_t first, const Word* masks, uint8_t* alive) {
  static_assert(kGroup / 32 >= kWords);
  __shared__ Word overlaps[kWords][kGroup];
  __shared__ Word kept[kWords], removed[kWords];
  __shared__ Group<T> group, later;
  const int count = static_cast<int>(min(args.n - first, int64_t{kGroup}));
  const int i = threadIdx.x, lane = i % 32, warp = i / 32;
  for (int w = 0; w < kWords; ++w)
    overlaps[w][i] = i < count ? masks[first * kWords + w * kGroup + i] : 0;
  group.fetch(args.boxes + first * 4, count);
  const int64_t next = first + kGroup + int64_t{blockIdx.x} * kGroup;
  const int others = static_cast<int>(min(max(args.n - next, int64_t{0}), int64_t{kGroup}));
  if (others > 0) later.fetch(args.boxes + next * 4, others);
  const unsigned here = __ballot_sync(0xffffffffu, i < count && alive[first + i]);
  if (lane == 0) reinterpret_cast<unsigned*>(removed)[warp] = ~here;
  __syncthreads();

  for (int w = 0; w < kWords; ++w) {
    if (i == 0) {
      Word gone = removed[w], stay = 0;
#pragma unroll 8
      for (int bit = 0; bit < kBits; ++bit) {
        const Word row = overlaps[w][w * kBits + bit];  // loaded ahead of the decision
        const bool stays = !(gone >> bit & 1);
        stay |= stays ? Word{1} << bit : 0, gone |= stays ? row : 0;
      }
      kept[w] = stay;
    }
    __syncthreads();
    if (warp > w && warp < kWords) {
      Word bits = 0;
      for (int bit = lane; bit < kBits; bit += 32)
        if (kept[w] >> bit & 1) bits |= overlaps[warp][w * kBits + bit];
      bits = warp_reduce(bits, [](Word a, Word b) { return a | b; });
      if (lane == 0) removed[warp] |= bits;
    }
    __syncthreads();
  }
  if (blockIdx.x == 0 && i < count) args.keep[first + i] = kept[i / kBits] >> i % kBits & 1;

  if (i >= others || !alive[next + i]) return;
  const Corners<T> box = later.box(i);
  for (int j = 0; j < count; ++j)
    if (kept[j / kBits] >> j % kBits & 1 && overlap(group.box(j), box, args.threshold)) {
      alive[next + i] = 0;
      break;
    }
}

template <class T>
void nms_fprop_greedy(const NmsArgs<T>& args) {
  const int64_t groups = ceil_div(args.n, kGroup);
  const Workspace masks(groups * kGroup * kWords * int64_t{sizeof(Word)}), alive(args.n);
  launch(overlap_kernel<T>, grid_size(groups), kGroup, 0, args, masks.get<Word>(),
         alive.get<uint8_t>());
  for (int64_t first = 0; first < args.n; first += kGroup) {
    const int64_t later = groups - first / kGroup - 1;
    launch(suppress_kernel<T>, grid_size(max(later, int64_t{1})), kGroup, 0, args, first,
           masks.get<Word>(), alive.get<uint8_t>());
  }
}

LAMINA_CUDA_INSTANTIATE(nms_fprop_greedy, NmsArgs)

}  // namespace lamina::cuda
