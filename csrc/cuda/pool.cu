// Max and average pooling, forward and backward (ops/pool.h); unpooling is in unpool.cu.
//
// Method        forward, a thread reduces the window of one output in plane after plane; where the
//               windows are large (global pools) a warp or a block does. Each input gradient
//               gathers the outputs that hold it: nothing is added to memory, no atomics. Unpooling
//               first looks for bad indices; then each input claims its output, the last one wins,
//               and each output fetches what claimed it.
// Partitioning  device/plane_grid.h: positions of a plane, then groups of planes.
// Numerics      sums in the order of the window, large ones over the lanes and then across them;
//               gradients in output order. avg_pool's gradient multiplies by 1 / divisor.
// Floor         one read of x and one write of y (and of the 8-byte indices).
#include "cuda/device/plane_grid.h"
#include "cuda/device/reduce.h"
#include "cuda/instantiate.h"
#include "ops/pool.h"

namespace lamina::cuda {

using ops::PoolArgs;
using ops::PoolAxis;

static constexpr int kThreads = PlaneGrid<int, 1>::kThreads;

// How many planes a thread serves at once; for planes of 2^31 elements and more, one.
template <class Offset>
inline constexpr int kAtOnce = sizeof(Offset) == 4 ? 4 : 1;
template <class Offset>
using PoolGrid = PlaneGrid<Offset, kAtOnce<Offset>>;
template <class Offset>
using SpreadGrid = PlaneGrid<Offset, 2 * kAtOnce<Offset>>;  // avg_pool's gradient: a load a plane

// Windows of about so many inputs and more are reduced by a warp, by a block.
static constexpr int64_t kWarpWindow = 32, kBlockWindow = 2048;

// Axis by axis where a flat position lies.
template <class Offset>
struct Coordinates {
  Offset at[3];

  __device__ __forceinline__ Coordinates(Offset flat, int64_t size1, int64_t size2) {
    const Offset rest = flat / static_cast<Offset>(size2);
    at[2] = flat - rest * static_cast<Offset>(size2);
    at[0] = rest / static_cast<Offset>(size1);
    at[1] = rest - at[0] * static_cast<Offset>(size1);
  }
};

// The window of one output: taps count[0] x count[1] x count[2], `step` elements of the plane apart
// along each axis, the first at `start`.
template <class Offset>
struct Window {
  Offset start, count[3], step[3];
  int64_t divisor = 1;

  __device__ __forceinline__ Window(const PoolAxis* axis, Offset output, bool divide_by) {
    const Coordinates<Offset> o(output, axis[1].out, axis[2].out);
    step[0] = static_cast<Offset>(axis[0].step * axis[1].in * axis[2].in);
    step[1] = static_cast<Offset>(axis[1].step * axis[2].in);
    step[2] = static_cast<Offset>(axis[2].step);
    start = 0;
    bool empty = false;
    for (int i = 0; i < 3; ++i) {
      start = static_cast<Offset>(start * axis[i].in + axis[i].start[o.at[i]]);
      count[i] = static_cast<Offset>(axis[i].count[o.at[i]]);
      empty |= count[i] <= 0;
      if (divide_by) divisor *= axis[i].divisor[o.at[i]];
    }
    if (empty) start = 0, count[0] = 0;
  }

  // Calls body(offset in the plane) for each tap, in order.
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
    Offset depth = start;
    for (Offset t0 = 0; t0 < count[0]; ++t0, depth += step[0]) {
      Offset row = depth;
      for (Offset t1 = 0; t1 < count[1]; ++t1, row += step[1]) {
        Offset at = row;
        for (Offset t2 = 0; t2 < count[2]; ++t2, at += step[2]) body(at);
      }
    }
  }
};

// Every LANES-th tap of a window from the lane-th on. What it takes to go from one to the next is
// worked out once for all planes.
template <class Offset, int LANES>
struct LaneTaps {
  Offset left;  // taps from the first on
  Offset first, column, row, columns, rows;
  Offset right, down, stride, next_row, next_plane;

  __device__ __forceinline__ LaneTaps(const Window<Offset>& window, Offset lane)
      : columns(max(window.count[2], Offset{1})), rows(max(window.count[1], Offset{1})) {
    left = window.count[0] * window.count[1] * window.count[2] - lane;
    column = lane % columns, row = lane / columns % rows;
    right = LANES % columns, down = LANES / columns % rows;
    const auto at = [&](Offset plane, Offset of_row, Offset of_column) {
      return plane * window.step[0] + of_row * window.step[1] + of_column * window.step[2];
    };
    first = window.start + at(lane / columns / rows, row, column);
    stride = at(LANES / columns / rows, down, right);
    next_row = at(0, 1, -columns), next_plane = at(1, -rows, 0);
  }

  // Calls body(offset in the plane) for each of them, in order.
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
    Offset at = first, t2 = column, t1 = row;
#pragma unroll 4
    for (Offset n = left; n > 0; n -= LANES) {
      body(at);
      at += stride, t2 += right, t1 += down;
      if (t2 >= columns) t2 -= columns, ++t1, at += next_row;
      if (t1 >= rows) t1 -= rows, at += next_plane;
    }
  }
};

// The maximum so far and where it was. A later tap wins if it is larger, or the first NaN.
template <class A, class Offset>
struct Maximum {
  A value;
  Offset at;

  __device__ __forceinline__ void take(A candidate, Offset offset) {
    const bool better = !(candidate <= value) && value == value;
    value = better ? candidate : value, at = better ? offset : at;
  }
  // The same for another part of the window, whose order is in its offsets.
  __device__ __forceinline__ void merge(const Maximum& other) {
    const bool equal = other.value == value || (other.value != other.value && value != value);
    const bool better = equal ? other.at < at : !(other.value <= value) && value == value;
    value = better ? other.value : value, at = better ? other.at : at;
  }
};

// ---- forward

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads, 4)
    max_pool_kernel(const PoolArgs<T> args, const PoolGrid<Offset> grid) {
  constexpr int kPlanes = kAtOnce<Offset>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const Window<Offset> window(args.axis, walk.position, false);
  for (; walk.more(); walk.next()) {
    const T* x[kPlanes];
    Maximum<Acc<T>, Offset> best[kPlanes];
    for (int k = 0; k < kPlanes; ++k) {
      x[k] = args.x + walk.plane(k) * args.in_size();
      best[k] = {-infinity<Acc<T>>(), window.start};
    }
    window.for_each([&](Offset at) {
      for (int k = 0; k < kPlanes; ++k) best[k].take(widen(x[k][at]), at);
    });
    for (int k = 0; k < kPlanes; ++k) {
      if (!walk.has(k)) continue;
      const int64_t o = walk.plane(k) * args.out_size() + walk.position;
      args.result[o] = narrow<T>(best[k].value);
      if (args.index) args.index[o] = best[k].at;
    }
  }
}

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads, 4)
    avg_pool_kernel(const PoolArgs<T> args, const PoolGrid<Offset> grid) {
  constexpr int kPlanes = kAtOnce<Offset>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const Window<Offset> window(args.axis, walk.position, true);
  for (; walk.more(); walk.next()) {
    const T* x[kPlanes];
    Acc<T> sum[kPlanes];
    for (int k = 0; k < kPlanes; ++k) {
      x[k] = args.x + walk.plane(k) * args.in_size();
      sum[k] = 0;
    }
    window.for_each([&](Offset at) {
      for (int k = 0; k < kPlanes; ++k) sum[k] += widen(x[k][at]);
    });
    for (int k = 0; k < kPlanes; ++k)
      if (walk.has(k))
        args.result[walk.plane(k) * args.out_size() + walk.position] =
            narrow<T>(sum[k] / Acc<T>(window.divisor));
  }
}

// Large windows: LANES threads an output, a warp or the block; a warp serves four planes at once.
template <int LANES>
inline constexpr int kOfLanes = LANES == 32 ? 4 : 1;
template <class Offset, int LANES>
using LanesGrid = PlaneGrid<Offset, kOfLanes<LANES>, LANES>;
static constexpr int kWarps = kThreads / 32;

// Merges N maxima over a warp, as warp_sum_scatter adds.
template <int N, int LANES = 16, class A, class Offset>
__device__ __forceinline__ void warp_merge_scatter(Maximum<A, Offset>* best) {
  constexpr int kHalf = N / 2;
  if constexpr (LANES > 0) {
    const bool upper = threadIdx.x & LANES;
#pragma unroll
    for (int i = 0; i < max(kHalf, 1); ++i) {
      Maximum<A, Offset> given = best[i];
      if constexpr (N > 1) {
        given = upper ? best[i] : best[i + kHalf];
        best[i] = upper ? best[i + kHalf] : best[i];
      }
      given.value = __shfl_xor_sync(0xffffffffu, given.value, LANES);
      given.at = __shfl_xor_sync(0xffffffffu, given.at, LANES);
      best[i].merge(given);
    }
    warp_merge_scatter<(N > 1 ? kHalf : 1), LANES / 2>(best);
  }
}

template <class T, class Offset, int LANES>
__global__ void __launch_bounds__(kThreads)
    max_pool_lanes_kernel(const PoolArgs<T> args, const LanesGrid<Offset, LANES> grid) {
  constexpr int kPlanes = kOfLanes<LANES>;
  constexpr Offset kNowhere = std::numeric_limits<Offset>::max();
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const int thread = threadIdx.x, lane = thread % 32;
  const Window<Offset> window(args.axis, walk.position, false);
  const LaneTaps<Offset, LANES> taps(window, thread % LANES);
  for (; walk.more(); walk.next()) {
    const T* x[kPlanes];
    Maximum<Acc<T>, Offset> best[kPlanes];
    for (int k = 0; k < kPlanes; ++k) {
      x[k] = args.x + walk.plane(k) * args.in_size();
      best[k] = {-infinity<Acc<T>>(), taps.left > 0 ? taps.first : kNowhere};
    }
    taps.for_each([&](Offset at) {
      for (int k = 0; k < kPlanes; ++k) best[k].take(widen(x[k][at]), at);
    });
    warp_merge_scatter<kPlanes>(best);
    if constexpr (LANES > 32) {
      __shared__ Acc<T> value[kWarps];
      __shared__ Offset at[kWarps];
      __syncthreads();  // the last plane's have been read
      if (lane == 0) value[thread / 32] = best[0].value, at[thread / 32] = best[0].at;
      __syncthreads();
      for (int warp = 0; warp < kWarps; ++warp) best[0].merge({value[warp], at[warp]});
    }
    const int k = lane * kPlanes / 32;
    if (thread % LANES % (32 / kPlanes) == 0 && thread % LANES < 32 && walk.has(k)) {
      const int64_t o = walk.plane(k) * args.out_size() + walk.position;
      args.result[o] = narrow<T>(best[0].value);
      if (args.index) args.index[o] = best[0].at == kNowhere ? 0 : best[0].at;
    }
  }
}

template <class T, class Offset, int LANES>
__global__ void __launch_bounds__(kThreads)
    avg_pool_lanes_kernel(const PoolArgs<T> args, const LanesGrid<Offset, LANES> grid) {
  constexpr int kPlanes = kOfLanes<LANES>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const int thread = threadIdx.x, lane = thread % 32;
  const Window<Offset> window(args.axis, walk.position, true);
  const LaneTaps<Offset, LANES> taps(window, thread % LANES);
  for (; walk.more(); walk.next()) {
    const T* x[kPlanes];
    Acc<T> sum[kPlanes];
    for (int k = 0; k < kPlanes; ++k) {
      x[k] = args.x + walk.plane(k) * args.in_size();
      sum[k] = 0;
    }
    taps.for_each([&](Offset at) {
      for (int k = 0; k < kPlanes; ++k) sum[k] += widen(x[k][at]);
    });
    warp_sum_scatter<kPlanes>(sum);
    if constexpr (LANES > 32) {
      __shared__ Acc<T> partial[kWarps];
      __syncthreads();  // the last plane's have been read
      if (lane == 0) partial[thread / 32] = sum[0];
      __syncthreads();
      sum[0] = partial[0];
      for (int warp = 1; warp < kWarps; ++warp) sum[0] += partial[warp];
    }
    const int k = lane * kPlanes / 32;
    if (thread % LANES % (32 / kPlanes) == 0 && thread % LANES < 32 && walk.has(k))
      args.result[walk.plane(k) * args.out_size() + walk.position] =
          narrow<T>(sum[0] / Acc<T>(window.divisor));
  }
}

// ---- backward

// The outputs whose windows may hold one input.
template <class Offset>
struct Covering {
  Offset first[3], last[3];
  Coordinates<Offset> input;

  __device__ __forceinline__ Covering(const PoolAxis* axis, Offset position)
      : input(position, axis[1].in, axis[2].in) {
    for (int i = 0; i < 3; ++i) {
      first[i] = static_cast<Offset>(axis[i].first[input.at[i]]);
      last[i] = static_cast<Offset>(axis[i].last[input.at[i]]);
    }
  }
};

// Whether the window of output o holds input i.
template <class Offset>
__device__ __forceinline__ bool covers(const PoolAxis& axis, Offset o, Offset i) {
  const Offset offset = i - static_cast<Offset>(axis.start[o]);
  const Offset step = static_cast<Offset>(axis.step);
  const Offset taps = step == 1 ? offset : offset / step;
  return offset >= 0 && taps * step == offset && taps < axis.count[o];
}

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads, 3)
    max_pool_gradient_kernel(const PoolArgs<T> args, const PoolGrid<Offset> grid) {
  constexpr int kPlanes = kAtOnce<Offset>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const PoolAxis* axis = args.axis;
  const Covering<Offset> outputs(axis, walk.position);
  for (; walk.more(); walk.next()) {
    int64_t begin[kPlanes];
    Acc<T> sum[kPlanes];
    for (int k = 0; k < kPlanes; ++k) begin[k] = walk.plane(k) * args.out_size(), sum[k] = 0;
    for (Offset o0 = outputs.first[0]; o0 < outputs.last[0]; ++o0)
      for (Offset o1 = outputs.first[1]; o1 < outputs.last[1]; ++o1) {
        const Offset row = static_cast<Offset>((o0 * axis[1].out + o1) * axis[2].out);
        for (Offset o = row + outputs.first[2]; o < row + outputs.last[2]; ++o)
          for (int k = 0; k < kPlanes; ++k) {
            const bool mine = args.index[begin[k] + o] == walk.position;
            const Acc<T> grad = widen(args.grad_y[begin[k] + o]);
            sum[k] += mine ? grad : Acc<T>(0);
          }
      }
    for (int k = 0; k < kPlanes; ++k)
      if (walk.has(k))
        args.result[walk.plane(k) * args.in_size() + walk.position] = narrow<T>(sum[k]);
  }
}

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads, 3)
    avg_pool_gradient_kernel(const PoolArgs<T> args, const SpreadGrid<Offset> grid) {
  constexpr int kPlanes = 2 * kAtOnce<Offset>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  const PoolAxis* axis = args.axis;
  const Covering<Offset> outputs(axis, walk.position);
  for (; walk.more(); walk.next()) {
    const T* grad_y[kPlanes];
    Acc<T> sum[kPlanes];
    for (int k = 0; k < kPlanes; ++k) {
      grad_y[k] = args.grad_y + walk.plane(k) * args.out_size();
      sum[k] = 0;
    }
    for (Offset o0 = outputs.first[0]; o0 < outputs.last[0]; ++o0) {
      if (!covers(axis[0], o0, outputs.input.at[0])) continue;
      for (Offset o1 = outputs.first[1]; o1 < outputs.last[1]; ++o1) {
        if (!covers(axis[1], o1, outputs.input.at[1])) continue;
        const int64_t rows = axis[0].divisor[o0] * axis[1].divisor[o1];
        const Offset row = static_cast<Offset>((o0 * axis[1].out + o1) * axis[2].out);
        for (Offset o2 = outputs.first[2]; o2 < outputs.last[2]; ++o2) {
          if (!covers(axis[2], o2, outputs.input.at[2])) continue;
          const Acc<T> share = Acc<T>(1) / Acc<T>(rows * axis[2].divisor[o2]);
          for (int k = 0; k < kPlanes; ++k) sum[k] += widen(grad_y[k][row + o2]) * share;
        }
      }
    }
    for (int k = 0; k < kPlanes; ++k)
      if (walk.has(k))
        args.result[walk.plane(k) * args.in_size() + walk.position] = narrow<T>(sum[k]);
  }
}

// ---- launches

// Calls body(Offset{}), 32 bits wide where they count the planes and the elements of each.
template <class T, class Body>
static void with_offset(const PoolArgs<T>& args, const Body& body) {
  if (fit_int(max(args.in_size(), args.out_size()), args.planes))
    body(int{});
  else
    body(int64_t{});
}

// Calls body(Offset{}, threads of an output as a constant).
template <class T, class Body>
static void with_lanes(const PoolArgs<T>& args, const Body& body) {
  with_offset(args, [&]<class Offset>(Offset offset) {
    constexpr bool kHuge = sizeof(Offset) > sizeof(int);  // too rare for a kernel of warps
    if (args.in_size() < kWarpWindow * args.out_size())
      body(offset, std::integral_constant<int, 1>());
    else if (args.in_size() < kBlockWindow * args.out_size())
      body(offset, std::integral_constant<int, kHuge ? kThreads : 32>());
    else
      body(offset, std::integral_constant<int, kThreads>());
  });
}

template <class T>
void max_pool_fprop_windows(const PoolArgs<T>& args) {
  with_lanes(args, [&]<class Offset, int LANES>(Offset, std::integral_constant<int, LANES>) {
    if constexpr (LANES > 1) {
      const LanesGrid<Offset, LANES> grid(args.out_size(), args.planes);
      launch(max_pool_lanes_kernel<T, Offset, LANES>, grid.size(), kThreads, 0, args, grid);
    } else {
      const PoolGrid<Offset> grid(args.out_size(), args.planes);
      launch(max_pool_kernel<T, Offset>, grid.size(), kThreads, 0, args, grid);
    }
  });
}

template <class T>
void avg_pool_fprop_windows(const PoolArgs<T>& args) {
  with_lanes(args, [&]<class Offset, int LANES>(Offset, std::integral_constant<int, LANES>) {
    if constexpr (LANES > 1) {
      const LanesGrid<Offset, LANES> grid(args.out_size(), args.planes);
      launch(avg_pool_lanes_kernel<T, Offset, LANES>, grid.size(), kThreads, 0, args, grid);
    } else {
      const PoolGrid<Offset> grid(args.out_size(), args.planes);
      launch(avg_pool_kernel<T, Offset>, grid.size(), kThreads, 0, args, grid);
    }
  });
}

template <class T>
void max_pool_dgrad_windows(const PoolArgs<T>& args) {
  with_offset(args, [&]<class Offset>(Offset) {
    const PoolGrid<Offset> grid(args.in_size(), args.planes);
    launch(max_pool_gradient_kernel<T, Offset>, grid.size(), kThreads, 0, args, grid);
  });
}

template <class T>
void avg_pool_dgrad_windows(const PoolArgs<T>& args) {
  with_offset(args, [&]<class Offset>(Offset) {
    const SpreadGrid<Offset> grid(args.in_size(), args.planes);
    launch(avg_pool_gradient_kernel<T, Offset>, grid.size(), kThreads, 0, args, grid);
  });
}

LAMINA_CUDA_INSTANTIATE(max_pool_fprop_windows, PoolArgs)
LAMINA_CUDA_INSTANTIATE(max_pool_dgrad_windows, PoolArgs)
LAMINA_CUDA_INSTANTIATE(avg_pool_fprop_windows, PoolArgs)
LAMINA_CUDA_INSTANTIATE(avg_pool_dgrad_windows, PoolArgs)

}  // namespace lamina::cuda
