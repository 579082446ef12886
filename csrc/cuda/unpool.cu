// Max unpooling, forward and backward (ops/pool.h).
//
// Method        first a look for bad indices; nothing else runs if there is one. Then each input
//               claims its output, the last one wins, and each output fetches what claimed it.
// Partitioning  device/plane_grid.h: positions of a plane, then groups of planes.
// Floor         one read of x and of the indices and one write of y; the indices are read twice,
//               and the claims, 4 bytes an output, are cleared, written and read.
#include "cuda/device/plane_grid.h"
#include "cuda/instantiate.h"
#include "ops/pool.h"

namespace lamina::cuda {

using ops::UnpoolArgs;

static constexpr int kThreads = PlaneGrid<int, 1>::kThreads;

// How many planes a thread serves at once; one where 32 bits do not count them.
template <class Offset>
inline constexpr int kAtOnce = sizeof(Offset) == 4 ? 4 : 1;
template <class Offset>
using UnpoolGrid = PlaneGrid<Offset, kAtOnce<Offset>>;

// *bad = the first position whose index is outside the output plane, as an unsigned number; all
// ones is -1.
__global__ void no_bad_index_kernel(unsigned long long* bad) {
  *bad = ~0ull;
}

// The loads of kIndices indices are in flight together.
static constexpr int kIndices = 4;

__global__ void __launch_bounds__(kThreads)
    bad_index_kernel(const int64_t* index, int64_t count, int64_t out_size,
                     unsigned long long* bad) {
  const int64_t first = int64_t{blockIdx.x} * kThreads * kIndices + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kIndices; ++k) {
    const int64_t i = first + k * kThreads;
    if (i < count && (index[i] < 0 || index[i] >= out_size))
      atomicMin(bad, static_cast<unsigned long long>(i));
  }
}

template <class T>
static void find_bad_index(const UnpoolArgs<T>& args) {
  auto* bad = reinterpret_cast<unsigned long long*>(args.bad);
  const int64_t count = args.planes * args.in_size;
  launch(no_bad_index_kernel, 1, 1, 0, bad);
  launch(bad_index_kernel, grid_size(ceil_div(count, kThreads * kIndices)), kThreads, 0, args.index,
         count, args.out_size, bad);
}

// Claim: 1 + the last position in the plane whose index is that output, or 0.
template <class Offset>
using Claim = std::conditional_t<sizeof(Offset) == 4, unsigned, unsigned long long>;

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads)
    claim_kernel(const UnpoolArgs<T> args, const UnpoolGrid<Offset> grid, Claim<Offset>* claims) {
  PlaneWalk walk(grid);
  if (!walk.any() || *args.bad >= 0) return;
  for (; walk.more(); walk.next())
    for (int k = 0; k < kAtOnce<Offset>; ++k) {
      if (!walk.has(k)) continue;
      const int64_t index = args.index[walk.plane(k) * args.in_size + walk.position];
      atomicMax(&claims[walk.plane(k) * args.out_size + index],
                static_cast<Claim<Offset>>(walk.position + 1));
    }
}

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads)
    unpool_kernel(const UnpoolArgs<T> args, const UnpoolGrid<Offset> grid,
                  const Claim<Offset>* claims) {
  PlaneWalk walk(grid);
  if (!walk.any() || *args.bad >= 0) return;
  for (; walk.more(); walk.next()) {
    Claim<Offset> claim[kAtOnce<Offset>];
    for (int k = 0; k < kAtOnce<Offset>; ++k)
      claim[k] = claims[walk.plane(k) * args.out_size + walk.position];
    for (int k = 0; k < kAtOnce<Offset>; ++k) {
      if (!walk.has(k)) continue;
      const T* x = args.source + walk.plane(k) * args.in_size;
      args.result[walk.plane(k) * args.out_size + walk.position] =
          claim[k] == 0 ? narrow<T>(0) : x[static_cast<int64_t>(claim[k]) - 1];
    }
  }
}

template <class T, class Offset>
__global__ void __launch_bounds__(kThreads)
    unpool_gradient_kernel(const UnpoolArgs<T> args, const UnpoolGrid<Offset> grid) {
  PlaneWalk walk(grid);
  if (!walk.any() || *args.bad >= 0) return;
  for (; walk.more(); walk.next()) {
    int64_t index[kAtOnce<Offset>];
    for (int k = 0; k < kAtOnce<Offset>; ++k)
      index[k] = args.index[walk.plane(k) * args.in_size + walk.position];
    for (int k = 0; k < kAtOnce<Offset>; ++k)
      if (walk.has(k))
        args.result[walk.plane(k) * args.in_size + walk.position] =
            args.source[walk.plane(k) * args.out_size + index[k]];
  }
}

template <class T, class Offset>
static void run_unpool(const UnpoolArgs<T>& args) {
  // Groups of planes whose claims take about kClaimBytes.
  constexpr int64_t kClaimBytes = int64_t{64} << 20;
  const int64_t plane_bytes = max(args.out_size, int64_t{1}) * int64_t{sizeof(Claim<Offset>)};
  const int64_t most = min(args.planes, max(kClaimBytes / plane_bytes, int64_t{1}));
  const Workspace workspace(most * plane_bytes);
  Claim<Offset>* claims = workspace.get<Claim<Offset>>();
  UnpoolArgs<T> part = args;
  for (int64_t first = 0; first < args.planes; first += most) {
    part.planes = min(most, args.planes - first);
    part.source = args.source + first * args.in_size;
    part.index = args.index + first * args.in_size;
    part.result = args.result + first * args.out_size;
    simt::fill_zero(claims, static_cast<size_t>(part.planes * plane_bytes), current_stream());
    const UnpoolGrid<Offset> inputs(args.in_size, part.planes), outputs(args.out_size, part.planes);
    launch(claim_kernel<T, Offset>, inputs.size(), kThreads, 0, part, inputs, claims);
    launch(unpool_kernel<T, Offset>, outputs.size(), kThreads, 0, part, outputs, claims);
  }
}

template <class T>
void max_unpool_fprop_indices(const UnpoolArgs<T>& args) {
  find_bad_index(args);
  if (fit_int(max(args.in_size, args.out_size), args.planes))
    run_unpool<T, int>(args);
  else
    run_unpool<T, int64_t>(args);
}

template <class T>
void max_unpool_dgrad_indices(const UnpoolArgs<T>& args) {
  find_bad_index(args);
  const auto run = [&]<class Offset>(Offset) {
    const UnpoolGrid<Offset> grid(args.in_size, args.planes);
    launch(unpool_gradient_kernel<T, Offset>, grid.size(), kThreads, 0, args, grid);
  };
  if (fit_int(max(args.in_size, args.out_size), args.planes))
    run(int{});
  else
    run(int64_t{});
}

LAMINA_CUDA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_CUDA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

}  // namespace lamina::cuda
