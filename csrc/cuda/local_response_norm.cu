// local_response_norm: y = x d^-beta, d = k + alpha * the sum of squares over a window.
//
// Method        terms (x^2; on the way back grad_y x d^(-beta - 1)) are added from shared memory;
//               boxes are summed one axis after the other. Nothing is ever taken off a sum: that
//               would carry NaN, Inf and rounding along the axis. The way back computes d again,
//               which costs less than to store it and to read it.
// Partitioning  slabs that fit into shared memory: a block takes whole ones. Larger ones across
//               channels: tiles of neighbouring columns, kRows channels a thread and the windows
//               around them. Larger boxes: one launch for each axis, through workspace.
// Numerics      sums in window order; a power errs by a few eps times 1 + |beta log d|.
// Floor         one read and one write of the tensor (gradient: two reads).
#include "cuda/device/index.h"
#include "cuda/device/launch.h"
#include "cuda/instantiate.h"
#include "ops/local_response_norm.h"

namespace lamina::cuda {

using ops::LocalResponseNormArgs;

static constexpr int kThreads = 256;

template <class T>
struct ResponseRule {
  const T* x;
  const T* grad_y;
  T* result;
  Acc<T> alpha, beta, k;

  __device__ __forceinline__ Acc<T> square(int64_t i) const {
    const Acc<T> value = widen(x[i]);
    return value * value;
  }
  // d of a window from its sum of squares, and d^-beta.
  __device__ __forceinline__ Acc<T> scale(Acc<T> squares) const { return k + alpha * squares; }
  __device__ __forceinline__ Acc<T> power(Acc<T> d) const { return exp(-beta * log(d)); }
  // grad_x of a position from its part in its own window, and the sum of the others' terms.
  __device__ __forceinline__ T gradient(Acc<T> own, Acc<T> value, Acc<T> sum) const {
    return narrow<T>(own - Acc<T>(2) * alpha * beta * value * sum);
  }
};

// How far the window of a position reaches, cut to the axis. The windows that hold a position lie
// the other way round.
struct Reach {
  int64_t size[3];
  int64_t before[3], after[3];

  __host__ __device__ Reach reversed() const {
    Reach other = *this;
    for (int axis = 0; axis < 3; ++axis)
      other.before[axis] = after[axis], other.after[axis] = before[axis];
    return other;
  }
};

// ---- whole slabs in shared memory

static constexpr int kSlabBytes = 16 * 1024;  // each of three buffers

// Box sums of `filled` elements in place, by way of `spare`; a thread sees its own elements at
// once, others' after a barrier.
template <class A>
__device__ __forceinline__ void slab_sums(const Reach& reach, int filled, A*& values, A*& spare) {
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
        for (int j = low; j <= high; ++j) sum += values[e + j * inner];
        spare[e] = sum;
      }
      A* const done = spare;
      spare = values, values = done;
    }
    inner *= size;
  }
}

// A block takes `count` elements, whole slabs; the last one may have fewer.
template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    slab_kernel(ResponseRule<T> rule, Reach reach, int count, int64_t total) {
  using A = Acc<T>;
  SIMT_DYNAMIC_SHARED(A, buffers);
  A *values = buffers, *spare = buffers + count, *gradients = buffers + 2 * count;
  const int64_t first = int64_t{blockIdx.x} * count;
  const int filled = static_cast<int>(min(int64_t{count}, total - first));
  for (int e = static_cast<int>(threadIdx.x); e < filled; e += kThreads)
    values[e] = rule.square(first + e);
  slab_sums(reach, filled, values, spare);
  for (int e = static_cast<int>(threadIdx.x); e < filled; e += kThreads) {
    const A d = rule.scale(values[e]), power = rule.power(d), x = widen(rule.x[first + e]);
    if (GRADIENT) {
      // Others may still read `spare`, not yet `values`.
      const A own = widen(rule.grad_y[first + e]) * power;
      gradients[e] = own, values[e] = own * x / d;
    } else {
      rule.result[first + e] = narrow<T>(x * power);
    }
  }
  if (!GRADIENT) return;
  slab_sums(reach.reversed(), filled, values, spare);
  for (int e = static_cast<int>(threadIdx.x); e < filled; e += kThreads)
    rule.result[first + e] = rule.gradient(gradients[e], widen(rule.x[first + e]), values[e]);
}

// ---- across channels: [slabs][n][inner], a window along n

// A block computes d of ranks * kRows<T> channels, from the x of those and the halo; on the way
// back the terms of those channels make the gradient of the ones whose windows' they all are.
template <class T>
inline constexpr int kRows = 64 / static_cast<int>(sizeof(Acc<T>));
static constexpr int kMaxHalo = 16;

struct ChannelTile {
  int64_t n, inner;
  int before, after;
  int width_log2, outputs;  // channels of a block's result

  __host__ __device__ constexpr int64_t columns() const {
    return (inner + (1 << width_log2) - 1) >> width_log2;
  }
  __host__ __device__ constexpr int64_t blocks() const { return (n + outputs - 1) / outputs; }
};

template <class T, bool GRADIENT>
static ChannelTile channel_tile(int64_t n, int64_t inner, int before, int after) {
  ChannelTile tile{n, inner, before, after, 5, 0};
  while (tile.width_log2 > 0 && int64_t{1} << (tile.width_log2 - 1) >= inner) --tile.width_log2;
  const int rows = (kThreads >> tile.width_log2) * kRows<T>;
  const int64_t most = rows - (GRADIENT ? before + after : 0);
  // Blocks of one size: all as small as their number allows.
  tile.outputs = static_cast<int>(ceil_div(n, ceil_div(n, most)));
  return tile;
}

template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads) channel_kernel(ResponseRule<T> rule, ChannelTile tile) {
  using A = Acc<T>;
  __shared__ A values[kThreads * kRows<T> + 32 * kMaxHalo];
  __shared__ A terms[GRADIENT ? kThreads * kRows<T> : 1];
  const int width_log2 = tile.width_log2, ranks = kThreads >> width_log2;
  const int rank = static_cast<int>(threadIdx.x) >> width_log2;
  const int lane = static_cast<int>(threadIdx.x) & ((1 << width_log2) - 1);
  const int64_t columns = tile.columns(), blocks = tile.blocks();
  const int64_t column = (remainder_of(blockIdx.x, columns) << width_log2) + lane;
  const int64_t rest = quotient_of(blockIdx.x, columns);
  const bool valid = column < tile.inner;
  const int64_t base = quotient_of(rest, blocks) * tile.n * tile.inner + column;
  const int before = tile.before, after = tile.after, halo = before + after;
  // Row 0 of the block's d, which for a gradient lies `after` above its first result.
  const int64_t top = remainder_of(rest, blocks) * tile.outputs - (GRADIENT ? after : 0);
  const int rows = tile.outputs + (GRADIENT ? halo : 0);

  for (int row = rank; row < rows + halo; row += ranks) {
    const int64_t channel = top - before + row;
    const bool inside = valid && channel >= 0 && channel < tile.n;
    values[(row << width_log2) + lane] = inside ? widen(rule.x[base + channel * tile.inner]) : A(0);
  }
  __syncthreads();
  A own[kRows<T>];
#pragma unroll
  for (int k = 0; k < kRows<T>; ++k) {
    const int row = rank + k * ranks;
    const int64_t channel = top + row;
    const bool inside = valid && row < rows && channel >= 0 && channel < tile.n;
    own[k] = A(0);
    A term = A(0);
    if (inside) {
      A squares = A(0);
      for (int j = 0; j <= halo; ++j) {
        const A value = values[((row + j) << width_log2) + lane];
        squares += value * value;
      }
      const A d = rule.scale(squares), x = values[((row + before) << width_log2) + lane];
      const int64_t at = base + channel * tile.inner;
      if (GRADIENT) {
        own[k] = widen(rule.grad_y[at]) * rule.power(d);
        term = own[k] * x / d;
      } else {
        rule.result[at] = narrow<T>(x * rule.power(d));
      }
    }
    if (GRADIENT && row < rows) terms[(row << width_log2) + lane] = term;
  }
  if (!GRADIENT) return;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kRows<T>; ++k) {
    const int row = rank + k * ranks;
    const int64_t channel = top + row;
    if (!valid || row < after || row >= rows - before || channel >= tile.n) continue;
    A sum = A(0);
    for (int j = -after; j <= before; ++j) sum += terms[((row + j) << width_log2) + lane];
    const A x = values[((row + before) << width_log2) + lane];
    rule.result[base + channel * tile.inner] = rule.gradient(own[k], x, sum);
  }
}

// ---- boxes of any size, through workspace

template <class T>
__global__ void __launch_bounds__(kThreads)
    square_kernel(ResponseRule<T> rule, Acc<T>* squares, int64_t total) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < total) squares[i] = rule.square(i);
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

// The result, or for a gradient the terms, from the sums of squares.
template <class T, bool GRADIENT>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(ResponseRule<T> rule, const Acc<T>* sums, Acc<T>* own, Acc<T>* terms,
                 int64_t total) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= total) return;
  const Acc<T> d = rule.scale(sums[i]), power = rule.power(d), x = widen(rule.x[i]);
  if (GRADIENT)
    own[i] = widen(rule.grad_y[i]) * power, terms[i] = own[i] * x / d;
  else
    rule.result[i] = narrow<T>(x * power);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(ResponseRule<T> rule, const Acc<T>* sums, const Acc<T>* own, int64_t total) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < total) rule.result[i] = rule.gradient(own[i], widen(rule.x[i]), sums[i]);
}

// Box sums of `values`, by way of `spare`.
template <class A>
static void axis_sums(const Reach& reach, int64_t total, A*& values, A*& spare) {
  int64_t inner = 1;
  for (int axis = 2; axis >= 0; --axis) {
    if (reach.before[axis] + reach.after[axis] > 0) {
      launch(axis_sum_kernel<A>, grid_size(ceil_div(total, kThreads)), kThreads, 0, values, spare,
             total, reach.size[axis], inner, reach.before[axis], reach.after[axis]);
      std::swap(values, spare);
    }
    inner *= reach.size[axis];
  }
}

template <class T, bool GRADIENT>
static void run_axes(const ResponseRule<T>& rule, const Reach& reach, int64_t total) {
  using A = Acc<T>;
  const unsigned grid = grid_size(ceil_div(total, kThreads));
  const Workspace buffers((GRADIENT ? 3 : 2) * total * static_cast<int64_t>(sizeof(A)));
  A *values = buffers.get<A>(), *spare = values + total;
  A* const own = GRADIENT ? spare + total : nullptr;
  launch(square_kernel<T>, grid, kThreads, 0, rule, values, total);
  axis_sums(reach, total, values, spare);
  launch(scale_kernel<T, GRADIENT>, grid, kThreads, 0, rule, values, own, spare, total);
  if (!GRADIENT) return;
  axis_sums(reach.reversed(), total, spare, values);
  launch(gradient_kernel<T>, grid, kThreads, 0, rule, spare, own, total);
}

template <class T, bool GRADIENT>
static void run(const LocalResponseNormArgs<T>& args) {
  using A = Acc<T>;
  const ResponseRule<T> rule{args.x,        args.grad_y,  args.result,
                             A(args.alpha), A(args.beta), A(args.k)};
  Reach reach;
  for (int axis = 0; axis < 3; ++axis) {
    reach.size[axis] = args.size[axis];
    reach.before[axis] = min(args.window[axis] / 2, args.size[axis]);
    reach.after[axis] = min((args.window[axis] - 1) / 2, args.size[axis]);
  }
  const int64_t slab = args.slab(), total = args.slabs * slab;
  constexpr int64_t kSlab = kSlabBytes / static_cast<int64_t>(sizeof(A));
  if (total == 0) return;
  if (slab <= kSlab) {
    // One large slab, or small ones until the 256 threads of the block have work.
    const int64_t together = max(int64_t{1}, min(kSlab / slab, ceil_div(2048, slab)));
    const int count = static_cast<int>(together * slab);
    launch(slab_kernel<T, GRADIENT>, grid_size(ceil_div(total, count)), kThreads,
           (GRADIENT ? 3 : 2) * static_cast<size_t>(count) * sizeof(A), rule, reach, count, total);
  } else if (args.window[1] == 1 && args.window[2] == 1 && args.window[0] <= kMaxHalo + 1) {
    const ChannelTile tile = channel_tile<T, GRADIENT>(args.size[0], args.size[1] * args.size[2],
                                                       static_cast<int>(reach.before[0]),
                                                       static_cast<int>(reach.after[0]));
    launch(channel_kernel<T, GRADIENT>, grid_size(args.slabs * tile.blocks() * tile.columns()),
           kThreads, 0, rule, tile);
  } else {
    run_axes<T, GRADIENT>(rule, reach, total);
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
