// local_response_norm: y = x d^-beta, d = k + alpha * the sum of squares over a window.
//
// Method        a value's term (x^2; on the way back grad_y x d^(-beta - 1)) goes to shared memory
//               once and is added from there; boxes are summed one axis after the other. Nothing is
//               ever taken off a sum: that would carry NaN, Inf and rounding along the axis.
// Partitioning  slabs that fit into shared memory: a block takes whole ones. Larger ones across
//               channels: tiles of neighbouring columns, kOutputs channels a thread and the window
//               around them. Larger boxes: one launch for each axis, through workspace.
// Numerics      sums in window order; a power errs by a few eps times 1 + |beta log d|.
// Floor         one read and two writes of the tensor (gradient: three reads, one write).
#include "cuda/device/index.h"
#include "cuda/device/launch.h"
#include "cuda/instantiate.h"
#include "ops/local_response_norm.h"

namespace lamina::cuda {

using ops::LocalResponseNormArgs;

static constexpr int kThreads = 256;

template <class T, bool GRADIENT>
struct ResponseRule {
  const T* x;
  Acc<T>* d;
  const T* grad_y;
  T* result;
  Acc<T> alpha, beta, k;

  // What element i adds to the windows that hold it.
  __device__ __forceinline__ Acc<T> term(int64_t i) const {
    const Acc<T> value = widen(x[i]);
    if (!GRADIENT) return value * value;
    return widen(grad_y[i]) * value * exp(-beta * log(d[i])) / d[i];
  }
  __device__ __forceinline__ void finish(int64_t i, Acc<T> sum) const {
    const Acc<T> value = widen(x[i]);
    if (GRADIENT) {
      const Acc<T> own = widen(grad_y[i]) * exp(-beta * log(d[i]));
      result[i] = narrow<T>(own - Acc<T>(2) * alpha * beta * value * sum);
    } else {
      const Acc<T> scale = k + alpha * sum;
      d[i] = scale;
      result[i] = narrow<T>(value * exp(-beta * log(scale)));
    }
  }
};

// How far the window of a position reaches, cut to the axis.
struct Reach {
  int64_t size[3];
  int64_t before[3], after[3];
};

// ---- whole slabs in shared memory

static constexpr int kSlabBytes = 24 * 1024;  // each of two buffers

// `count` elements of one buffer hold whole slabs; the last block may have fewer.
template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    slab_kernel(ResponseRule<T, GRADIENT> rule, Reach reach, int count, int64_t total) {
  using A = Acc<T>;
  SIMT_DYNAMIC_SHARED(A, buffers);
  A *from = buffers, *to = buffers + count;
  const int64_t first = int64_t{blockIdx.x} * count;
  const int filled = static_cast<int>(min(int64_t{count}, total - first));
  for (int e = static_cast<int>(threadIdx.x); e < filled; e += kThreads)
    from[e] = rule.term(first + e);
  int inner = 1;
  for (int axis = 2; axis >= 0; --axis) {
    const int size = static_cast<int>(reach.size[axis]);
    const int before = static_cast<int>(reach.before[axis]);
    const int after = static_cast<int>(reach.after[axis]);
    if (before + after > 0) {
      __syncthreads();
      for (int e = static_cast<int>(threadIdx.x); e < filled; e += kThreads) {
        const int i = static_cast<int>(static_cast<unsigned>(e) / static_cast<unsigned>(inner) %
                                       static_cast<unsigned>(size));
        const int low = max(i - before, 0) - i, high = min(i + after, size - 1) - i;
        A sum = A(0);
        for (int j = low; j <= high; ++j) sum += from[e + j * inner];
        to[e] = sum;
      }
      A* const done = to;
      to = from, from = done;
    }
    inner *= size;
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < filled; e += kThreads)
    rule.finish(first + e, from[e]);
}

// ---- across channels: [slabs][n][inner], a window along n

struct ChannelTile {
  static constexpr int kOutputs = 8;  // channels of a thread
  static constexpr int kHalo = 16;    // rows beyond the outputs' that fit at once

  int64_t n, inner, before, after;
  int width_log2;

  __host__ __device__ constexpr int ranks() const { return kThreads >> width_log2; }
  __host__ __device__ constexpr int rows() const { return ranks() * kOutputs; }
  __host__ __device__ constexpr int64_t columns() const {
    return (inner + (1 << width_log2) - 1) >> width_log2;
  }
  __host__ __device__ constexpr int64_t blocks() const { return (n + rows() - 1) / rows(); }
};

template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    channel_kernel(ResponseRule<T, GRADIENT> rule, ChannelTile tile) {
  using A = Acc<T>;
  __shared__ A terms[kThreads * ChannelTile::kOutputs + 32 * ChannelTile::kHalo];
  const int width_log2 = tile.width_log2, ranks = tile.ranks(), rows = tile.rows();
  const int rank = static_cast<int>(threadIdx.x) >> width_log2;
  const int lane = static_cast<int>(threadIdx.x) & ((1 << width_log2) - 1);
  const int64_t block = blockIdx.x, columns = tile.columns(), blocks = tile.blocks();
  const int64_t column = (remainder_of(block, columns) << width_log2) + lane;
  const int64_t rest = quotient_of(block, columns);
  const int64_t top = remainder_of(rest, blocks) * rows;
  const bool valid = column < tile.inner;
  const int64_t base = quotient_of(rest, blocks) * tile.n * tile.inner + column;

  A sums[ChannelTile::kOutputs];
#pragma unroll
  for (int k = 0; k < ChannelTile::kOutputs; ++k) sums[k] = A(0);
  const int chunk = rows + ChannelTile::kHalo;
  const int64_t end = min(top + rows + tile.after, tile.n);
  for (int64_t low = max(top - tile.before, int64_t{0}); low < end; low += chunk) {
    const int filled = static_cast<int>(min(int64_t{chunk}, end - low));
    __syncthreads();  // the previous rows have been added
    for (int row = rank; row < filled; row += ranks)
      terms[(row << width_log2) + lane] = valid ? rule.term(base + (low + row) * tile.inner) : A(0);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < ChannelTile::kOutputs; ++k) {
      const int64_t output = top + rank + k * ranks - low;
      const int from = static_cast<int>(max(output - tile.before, int64_t{0}));
      const int to =
          static_cast<int>(max(min(output + tile.after, int64_t{filled} - 1), int64_t{-1}));
      for (int row = from; row <= to; ++row) sums[k] += terms[(row << width_log2) + lane];
    }
  }
#pragma unroll
  for (int k = 0; k < ChannelTile::kOutputs; ++k) {
    const int64_t output = top + rank + k * ranks;
    if (valid && output < tile.n) rule.finish(base + output * tile.inner, sums[k]);
  }
}

// ---- boxes of any size, through workspace

template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    term_kernel(ResponseRule<T, GRADIENT> rule, Acc<T>* terms, int64_t total) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < total) terms[i] = rule.term(i);
}

// to = sums of `from` along the middle axis of [outer][n][inner].
template <class A>
__global__ void __launch_bounds__(kThreads)
    axis_sum_kernel(const A* from, A* to, int64_t total, int64_t n, int64_t inner, int64_t before,
                    int64_t after) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= total) return;
  const int64_t i = remainder_of(quotient_of(e, inner), n);
  const int64_t low = max(i - before, int64_t{0}) - i, high = min(i + after, n - 1) - i;
  A sum = A(0);
  for (int64_t j = low; j <= high; ++j) sum += from[e + j * inner];
  to[e] = sum;
}

template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(ResponseRule<T, GRADIENT> rule, const Acc<T>* sums, int64_t total) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < total) rule.finish(i, sums[i]);
}

template <class T, bool GRADIENT>
static void run_axes(const ResponseRule<T, GRADIENT>& rule, const Reach& reach, int64_t total) {
  using A = Acc<T>;
  const unsigned grid = grid_size(ceil_div(total, kThreads));
  const Workspace buffers(2 * total * static_cast<int64_t>(sizeof(A)));
  A *from = buffers.get<A>(), *to = from + total;
  launch(term_kernel<T, GRADIENT>, grid, kThreads, 0, rule, from, total);
  int64_t inner = 1;
  for (int axis = 2; axis >= 0; --axis) {
    if (reach.before[axis] + reach.after[axis] > 0) {
      launch(axis_sum_kernel<A>, grid, kThreads, 0, from, to, total, reach.size[axis], inner,
             reach.before[axis], reach.after[axis]);
      std::swap(from, to);
    }
    inner *= reach.size[axis];
  }
  launch(finish_kernel<T, GRADIENT>, grid, kThreads, 0, rule, from, total);
}

template <class T, bool GRADIENT>
static void run(const LocalResponseNormArgs<T>& args) {
  using A = Acc<T>;
  const ResponseRule<T, GRADIENT> rule{args.x,        args.d,       args.grad_y, args.result,
                                       A(args.alpha), A(args.beta), A(args.k)};
  Reach reach;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t size = args.size[axis], back = args.window[axis] / 2;
    const int64_t ahead = (args.window[axis] - 1) / 2;
    reach.size[axis] = size;
    // The windows that hold a position lie the other way round.
    reach.before[axis] = min(GRADIENT ? ahead : back, size);
    reach.after[axis] = min(GRADIENT ? back : ahead, size);
  }
  const int64_t slab = args.slab(), total = args.slabs * slab;
  constexpr int64_t kSlab = kSlabBytes / static_cast<int64_t>(sizeof(A));
  if (total == 0) return;
  if (slab <= kSlab) {
    // Two slabs at least, or more of the small ones: a block has 256 threads.
    const int64_t together = max(int64_t{1}, min(kSlab / slab, ceil_div(2048, slab)));
    const int count = static_cast<int>(together * slab);
    launch(slab_kernel<T, GRADIENT>, grid_size(ceil_div(total, count)), kThreads,
           2 * static_cast<size_t>(count) * sizeof(A), rule, reach, count, total);
  } else if (args.window[1] == 1 && args.window[2] == 1) {
    ChannelTile tile{args.size[0], args.size[1] * args.size[2], reach.before[0], reach.after[0], 5};
    while (tile.width_log2 > 0 && int64_t{1} << (tile.width_log2 - 1) >= tile.inner)
      --tile.width_log2;
    launch(channel_kernel<T, GRADIENT>, grid_size(args.slabs * tile.blocks() * tile.columns()),
           kThreads, 0, rule, tile);
  } else {
    run_axes(rule, reach, total);
  }
}

template <class T>
void local_response_norm_fprop_windows(const LocalResponseNormArgs<T>& args) {
  run<T, false>(args);
}

template <class T>
void local_response_norm_dgrad_windows(const LocalResponseNormArgs<T>& args) {
  run<T, true>(args);
}

LAMINA_CUDA_INSTANTIATE(local_response_norm_fprop_windows, LocalResponseNormArgs)
LAMINA_CUDA_INSTANTIATE(local_response_norm_dgrad_windows, LocalResponseNormArgs)

}  // namespace lamina::cuda
