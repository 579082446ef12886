// conv, depthwise: one input channel a group.
//
// Method        a block computes a tile of result planes: the box of the source that the tile needs
//               lies in shared memory, padding as zeros, beside the filters. A thread holds a strip
//               of rows of one column. At stride and dilation 1 a window of the strip's height
//               slides down the box: one shared read serves all its products. The input gradient
//               at stride 1 is the same kernel with the filter turned round; at a stride every
//               result gathers the taps that hit it, so that stores stay whole rows. wgrad: the box
//               of x serves all taps of a tile of y, whose strip a thread holds in registers; warps
//               add up eight taps at a time.
// Partitioning  planes (image, channel, depth) and tiles of them, see shared/depthwise_tile.h;
//               wgrad: parts of a channel's tiles, added in order by a second pass.
// Floor         reads the source and writes the result once; wgrad: reads x and grad_y once.
#include "cuda/device/finish.h"
#include "cuda/device/partial_sums.h"
#include "cuda/device/reduce.h"
#include "cuda/instantiate.h"
#include "shared/conv_phase.h"
#include "shared/depthwise_tile.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;

static constexpr int kThreads = DepthwiseTile::kThreads, kWarps = kThreads / 32;
static constexpr int kMaxPlanes = 64;

// ---- the box of a tile

struct Box {
  int planes, rows, cols, pitch;
  int source_rows, source_cols;

  __host__ __device__ constexpr int size() const { return rows * pitch; }  // of a plane
};

// box[plane][row][col] = the element (first_row + row, first_col + col) of the plane that begins at
// plane_source, zero outside it and everywhere where that is negative. A warp takes every kWarps-th
// row, four loads under way at a time.
template <class T>
__device__ __forceinline__ void load_box(const T* source, const int64_t* plane_source,
                                         const Box& shape, int first_row, int first_col,
                                         Acc<T>* box) {
  using A = Acc<T>;
  constexpr int kRows = 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = shape.planes * shape.rows;
  for (int base = warp; base < rows; base += kRows * kWarps) {
    const T* line[kRows];
    bool inside[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int row = min(base + u * kWarps, rows - 1), plane = row / shape.rows;
      const int i1 = first_row + row - plane * shape.rows;
      const int64_t at = plane_source[plane];
      inside[u] = at >= 0 && i1 >= 0 && i1 < shape.source_rows;
      line[u] = source + (inside[u] ? at + int64_t{i1} * shape.source_cols : 0);
    }
    for (int c = lane; c < shape.cols; c += 32) {
      const int i2 = first_col + c;
      const bool in_line = i2 >= 0 && i2 < shape.source_cols;
      A value[kRows];
#pragma unroll
      for (int u = 0; u < kRows; ++u) value[u] = inside[u] && in_line ? widen(line[u][i2]) : A(0);
#pragma unroll
      for (int u = 0; u < kRows; ++u)
        if (base + u * kWarps < rows) box[(base + u * kWarps) * shape.pitch + c] = value[u];
    }
  }
}

static Box make_box(const DepthwiseTile& tile, int64_t source_rows, int64_t source_cols) {
  return {static_cast<int>(tile.planes),     static_cast<int>(tile.box_rows()),
          static_cast<int>(tile.box_cols()), static_cast<int>(tile.box_pitch()),
          static_cast<int>(source_rows),     static_cast<int>(source_cols)};
}

// ---- fprop and dgrad

enum class Taps { window, strided, gather };

template <class T>
struct DepthwisePass {
  const T* source;
  const T* weight;  // [k][kernel]
  const T* bias;    // one for each result channel, or null
  T* result;
  Finish<T> finish;
  bool gradient;
  int64_t planes;                     // of the result: images, channels, depths
  int64_t channels, source_channels;  // of the result and the source
  int multiplier;                     // output channels of an input channel
  int result_size[3], source_size[3], kernel[3], stride[3], dilation[3], pad[3];
  Box box;
  int tile_rows, tile_cols, row_tiles, col_tiles;  // results of a block
};

// The first tap that hits the positions of residue `phase` modulo the stride; `taps` if none does.
__device__ __forceinline__ int first_tap(int phase, int stride, int dilation, int taps) {
  for (int tap = 0; tap < taps && tap < stride; ++tap)
    if ((phase + tap * (stride - dilation % stride)) % stride == 0) return tap;
  return taps;
}

template <class T, Taps TAPS, int STRIP>
__global__ void __launch_bounds__(kThreads, sizeof(T) < sizeof(double) ? 4 : 3)
    conv_depthwise_kernel(const __grid_constant__ DepthwisePass<T> pass) {
  using A = Acc<T>;
  SIMT_DYNAMIC_SHARED(A, shared);
  A* const box = shared;
  const int taps = pass.kernel[1] * pass.kernel[2];
  A* const filters = shared + pass.box.planes * pass.box.size();  // [plane][kernel[1]][kernel[2]]
  __shared__ int64_t plane_source[kMaxPlanes];  // first element of the source plane, or -1
  __shared__ int64_t plane_filter[kMaxPlanes];
  __shared__ int first_taps[2][DepthwiseTile::kLargestStride];

  // The block's tile and the box's first row and column.
  const int tile = static_cast<int>(blockIdx.x) % (pass.row_tiles * pass.col_tiles);
  const int64_t plane0 = int64_t{blockIdx.x} / (pass.row_tiles * pass.col_tiles) * pass.box.planes;
  const int row0 = tile / pass.col_tiles * pass.tile_rows;
  const int col0 = tile % pass.col_tiles * pass.tile_cols;
  const int reach1 = (pass.kernel[1] - 1) * pass.dilation[1];
  const int reach2 = (pass.kernel[2] - 1) * pass.dilation[2];
  int first_row = row0 * pass.stride[1] - pass.pad[1];
  int first_col = col0 * pass.stride[2] - pass.pad[2];
  if (TAPS == Taps::gather) {
    // Rounded down: with `reach` strides more the dividend is not negative.
    first_row = (row0 + pass.pad[1] - reach1 + pass.stride[1] * reach1) / pass.stride[1] - reach1;
    first_col = (col0 + pass.pad[2] - reach2 + pass.stride[2] * reach2) / pass.stride[2] - reach2;
    for (int e = threadIdx.x; e < pass.stride[1] + pass.stride[2]; e += kThreads) {
      const int axis = e < pass.stride[1] ? 1 : 2, phase = axis == 1 ? e : e - pass.stride[1];
      first_taps[axis - 1][phase] =
          first_tap(phase, pass.stride[axis], pass.dilation[axis], pass.kernel[axis]);
    }
  }

  const int col = threadIdx.x % pass.tile_cols, rest = threadIdx.x / pass.tile_cols;
  const int strips = pass.tile_rows / STRIP, strip_row = rest % strips * STRIP;
  const int own_plane = rest / strips;
  const bool active = own_plane < pass.box.planes && plane0 + own_plane < pass.planes &&
                      col0 + col < pass.result_size[2];

  A sum[STRIP] = {};
  const int sources = pass.gradient ? pass.multiplier : 1;
  for (int source = 0; source < sources; ++source)
    for (int tap0 = 0; tap0 < pass.kernel[0]; ++tap0) {
      // Where the planes' sources and filters begin: read until the box was loaded.
      if (static_cast<int>(threadIdx.x) < pass.box.planes) {
        const int64_t plane = plane0 + threadIdx.x, depth = plane % pass.result_size[0];
        const int64_t image_channel = plane / pass.result_size[0];
        const int64_t channel = image_channel % pass.channels, n = image_channel / pass.channels;
        const int64_t from =
            pass.gradient ? channel * pass.multiplier + source : channel / pass.multiplier;
        int64_t at = depth * pass.stride[0] - pass.pad[0] + int64_t{tap0} * pass.dilation[0];
        bool hit = true;
        if (pass.gradient) {
          at = depth + pass.pad[0] - int64_t{tap0} * pass.dilation[0];
          hit = at % pass.stride[0] == 0;
          at /= pass.stride[0];
        }
        hit = hit && plane < pass.planes && at >= 0 && at < pass.source_size[0];
        plane_source[threadIdx.x] =
            hit ? ((n * pass.source_channels + from) * pass.source_size[0] + at) *
                      pass.source_size[1] * pass.source_size[2]
                : -1;
        plane_filter[threadIdx.x] =
            plane < pass.planes ? ((pass.gradient ? from : channel) * pass.kernel[0] + tap0) * taps
                                : -1;
      }
      __syncthreads();  // also: box and filters of the tap before have been read

      load_box(pass.source, plane_source, pass.box, first_row, first_col, box);
      // Turned round where the gradient is a convolution.
      const bool turned = pass.gradient && TAPS != Taps::gather;
      for (int e = threadIdx.x; e < pass.box.planes * taps; e += kThreads) {
        const int plane = e / taps, tap = e - plane * taps;
        filters[turned ? plane * taps + taps - 1 - tap : e] =
            plane_filter[plane] >= 0 ? widen(pass.weight[plane_filter[plane] + tap]) : A(0);
      }
      __syncthreads();

      if (active) {
        const A* filter = filters + own_plane * taps;
        const A* own = box + own_plane * pass.box.size();
        const int pitch = pass.box.pitch;
        if constexpr (TAPS == Taps::window) {
          own += strip_row * pitch + col;
          for (int s = 0; s < pass.kernel[2]; ++s) {
            A x[STRIP];
#pragma unroll
            for (int j = 0; j + 1 < STRIP; ++j) x[j] = own[j * pitch + s];
            const A* next = own + (STRIP - 1) * pitch + s;
#pragma unroll 4
            for (int r = 0; r < pass.kernel[1]; ++r, next += pitch) {
              const A weight = filter[r * pass.kernel[2] + s];
              x[STRIP - 1] = *next;
#pragma unroll
              for (int j = 0; j < STRIP; ++j) sum[j] += weight * x[j];
#pragma unroll
              for (int j = 0; j + 1 < STRIP; ++j) x[j] = x[j + 1];
            }
          }
        } else if constexpr (TAPS == Taps::strided) {
          const A* line[STRIP];
#pragma unroll
          for (int j = 0; j < STRIP; ++j)
            line[j] = own + (strip_row + j) * pass.stride[1] * pitch + col * pass.stride[2];
          for (int r = 0; r < pass.kernel[1]; ++r)
            for (int s = 0; s < pass.kernel[2]; ++s) {
              const A weight = filter[r * pass.kernel[2] + s];
              const int shift = r * pass.dilation[1] * pitch + s * pass.dilation[2];
#pragma unroll
              for (int j = 0; j < STRIP; ++j) sum[j] += weight * line[j][shift];
            }
        } else {
          // tap += step takes the source back by dilation / gcd.
          const int divisor1 = static_cast<int>(greatest_divisor(pass.stride[1], pass.dilation[1]));
          const int divisor2 = static_cast<int>(greatest_divisor(pass.stride[2], pass.dilation[2]));
          const int step1 = pass.stride[1] / divisor1, back1 = pass.dilation[1] / divisor1;
          const int step2 = pass.stride[2] / divisor2, back2 = pass.dilation[2] / divisor2;
          const int w = col0 + col + pass.pad[2];
          const int s0 = first_taps[1][w % pass.stride[2]];
          const int i2 = (w - s0 * pass.dilation[2]) / pass.stride[2] - first_col;
#pragma unroll
          for (int j = 0; j < STRIP; ++j) {
            const int h = row0 + strip_row + j + pass.pad[1];
            int r = first_taps[0][h % pass.stride[1]];
            int i1 = (h - r * pass.dilation[1]) / pass.stride[1] - first_row;
            for (; r < pass.kernel[1]; r += step1, i1 -= back1)
              for (int s = s0, i = i2; s < pass.kernel[2]; s += step2, i -= back2)
                sum[j] += filter[r * pass.kernel[2] + s] * own[i1 * pitch + i];
          }
        }
      }
    }

  if (active) {
    const int64_t plane = plane0 + own_plane;
    const A bias = pass.bias ? widen(pass.bias[plane / pass.result_size[0] % pass.channels]) : A(0);
    const int row = row0 + strip_row;
    int64_t at = (plane * pass.result_size[1] + row) * pass.result_size[2] + col0 + col;
#pragma unroll
    for (int j = 0; j < STRIP; ++j, at += pass.result_size[2])
      if (row + j < pass.result_size[1]) pass.result[at] = pass.finish(sum[j] + bias, at);
  }
}

template <class T>
static void run_depthwise(const ConvArgs<T>& args, bool gradient) {
  const ConvShape& s = args.shape;
  const DepthwiseTile tile(s, gradient);
  DepthwisePass<T> pass{};
  pass.source = gradient ? args.grad_y : args.x;
  pass.weight = args.weight, pass.bias = args.bias, pass.result = args.result;
  pass.finish = Finish<T>(args.epilogue);
  pass.gradient = gradient;
  pass.channels = gradient ? s.c : s.k, pass.source_channels = gradient ? s.k : s.c;
  pass.planes = s.n * pass.channels * (gradient ? s.in[0] : s.out[0]);
  pass.multiplier = static_cast<int>(s.k_per_group());
  for (int axis = 0; axis < 3; ++axis) {
    pass.result_size[axis] = static_cast<int>(gradient ? s.in[axis] : s.out[axis]);
    pass.source_size[axis] = static_cast<int>(gradient ? s.out[axis] : s.in[axis]);
    pass.kernel[axis] = static_cast<int>(s.kernel[axis]);
    pass.stride[axis] = static_cast<int>(s.stride[axis]);
    pass.dilation[axis] = static_cast<int>(s.dilation[axis]);
    pass.pad[axis] = static_cast<int>(s.pad[axis]);
    if (axis > 0 && gradient && !tile.gather)  // the convolution that turns the filter round
      pass.pad[axis] = static_cast<int>((s.kernel[axis] - 1) * s.dilation[axis] - s.pad[axis]);
  }
  pass.tile_rows = static_cast<int>(tile.rows()), pass.tile_cols = static_cast<int>(tile.cols);
  pass.box = make_box(tile, pass.source_size[1], pass.source_size[2]);
  pass.row_tiles = static_cast<int>(ceil_div(tile.size[0], tile.rows()));
  pass.col_tiles = static_cast<int>(ceil_div(tile.size[1], tile.cols));
  const unsigned grid =
      grid_size(ceil_div(pass.planes, tile.planes) * pass.row_tiles * pass.col_tiles);
  const size_t bytes = static_cast<size_t>(tile.elements()) * sizeof(Acc<T>);
  const bool slides =
      pass.stride[1] == 1 && pass.stride[2] == 1 && s.dilation[1] == 1 && s.dilation[2] == 1;
  const auto start = [&](auto kernel) { launch(kernel, grid, kThreads, bytes, pass); };
  if (tile.strip == 1)
    start(tile.gather ? conv_depthwise_kernel<T, Taps::gather, 1>
                      : conv_depthwise_kernel<T, Taps::strided, 1>);
  else if (tile.gather)
    start(conv_depthwise_kernel<T, Taps::gather, 4>);
  else
    start(slides ? conv_depthwise_kernel<T, Taps::window, 8>
                 : conv_depthwise_kernel<T, Taps::strided, 8>);
}

template <class T>
void conv_fprop_depthwise(const ConvArgs<T>& args) {
  run_depthwise(args, false);
}

template <class T>
void conv_dgrad_depthwise(const ConvArgs<T>& args) {
  run_depthwise(args, true);
}

// ---- wgrad

template <class T>
struct DepthwiseWgrad {
  const T* x;
  const T* grad_y;
  T* result;        // one part
  Acc<T>* partial;  // several: [part][k][kernel]
  int64_t images, channels, x_channels;
  int64_t units, part_units;  // tiles of a channel, of a part of it
  int multiplier;
  int y_size[3], x_depth, kernel[3], stride[3], dilation[3], pad[3];
  Box box;
  int tile_rows, tile_cols, row_tiles, col_tiles;
};

static constexpr int kTapChunk = 8;  // taps that a warp adds up at a time

// sum[i] += over the rows of a strip of grad * x for taps tap0 + i; `line` are the rows of x at the
// first tap. Rows from `rows` on do not count: x may be NaN there.
template <int STRIP, bool WHOLE, class A>
__device__ __forceinline__ void add_taps(A* sum, const A* grad, const A* const* line, int rows,
                                         int count, int tap0, int kernel_cols, int row_step,
                                         int col_step) {
  int r = tap0 / kernel_cols, s = tap0 - r * kernel_cols;
#pragma unroll
  for (int i = 0; i < kTapChunk; ++i)
    if (i < count) {
      const int shift = r * row_step + s * col_step;
#pragma unroll
      for (int j = 0; j < STRIP; ++j)
        if (WHOLE || j < rows) sum[i] += grad[j] * line[j][shift];
      if (++s == kernel_cols) s = 0, ++r;
    }
}

template <class T, int STRIP>
__global__ void __launch_bounds__(kThreads, sizeof(T) < sizeof(double) ? 3 : 2)
    conv_depthwise_wgrad_kernel(const __grid_constant__ DepthwiseWgrad<T> pass) {
  using A = Acc<T>;
  SIMT_DYNAMIC_SHARED(A, shared);
  A* const box = shared;
  A* const totals = shared + pass.box.planes * pass.box.size();  // [warp][kernel]
  __shared__ int64_t plane_source[kMaxPlanes];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int plane_taps = pass.kernel[1] * pass.kernel[2], taps = pass.kernel[0] * plane_taps;
  const int64_t k = blockIdx.x % pass.channels, part = blockIdx.x / pass.channels;
  const int64_t unit_end = min((part + 1) * pass.part_units, pass.units);

  const int col = threadIdx.x % pass.tile_cols, rest = threadIdx.x / pass.tile_cols;
  const int strips = pass.tile_rows / STRIP, strip_row = rest % strips * STRIP;
  const int own_plane = rest / strips, pitch = pass.box.pitch;
  const A* line[STRIP];
#pragma unroll
  for (int j = 0; j < STRIP; ++j)
    line[j] = box + min(own_plane, pass.box.planes - 1) * pass.box.size() +
              (strip_row + j) * pass.stride[1] * pitch + col * pass.stride[2];

  for (int e = threadIdx.x; e < kWarps * taps; e += kThreads) totals[e] = A(0);
  for (int64_t unit = part * pass.part_units; unit < unit_end; ++unit) {
    const int tiles = pass.row_tiles * pass.col_tiles;
    const int tile = static_cast<int>(unit % tiles);
    const int64_t plane0 = unit / tiles * pass.box.planes;
    const int row0 = tile / pass.col_tiles * pass.tile_rows;
    const int col0 = tile % pass.col_tiles * pass.tile_cols;

    // The thread's strip of grad_y: no rows where it has none.
    const int64_t planes = pass.images * pass.y_size[0], plane = plane0 + own_plane;
    const bool active =
        own_plane < pass.box.planes && plane < planes && col0 + col < pass.y_size[2];
    const int rows = active ? min(STRIP, pass.y_size[1] - row0 - strip_row) : 0;
    A grad[STRIP];
    const int64_t n = plane / pass.y_size[0], depth = plane % pass.y_size[0];
    const T* from =
        pass.grad_y +
        (((n * pass.channels + k) * pass.y_size[0] + depth) * pass.y_size[1] + row0 + strip_row) *
            pass.y_size[2] +
        col0 + col;
#pragma unroll
    for (int j = 0; j < STRIP; ++j)
      grad[j] = j < rows ? widen(from[int64_t{j} * pass.y_size[2]]) : A(0);

    for (int tap_depth = 0; tap_depth < pass.kernel[0]; ++tap_depth) {
      if (static_cast<int>(threadIdx.x) < pass.box.planes) {
        const int64_t own = plane0 + threadIdx.x, image = own / pass.y_size[0];
        const int64_t at = own % pass.y_size[0] * pass.stride[0] - pass.pad[0] +
                           int64_t{tap_depth} * pass.dilation[0];
        const bool hit = own < planes && at >= 0 && at < pass.x_depth;
        plane_source[threadIdx.x] =
            hit ? ((image * pass.x_channels + k / pass.multiplier) * pass.x_depth + at) *
                      pass.box.source_rows * pass.box.source_cols
                : -1;
      }
      __syncthreads();  // also: the box before has been read
      load_box(pass.x, plane_source, pass.box, row0 * pass.stride[1] - pass.pad[1],
               col0 * pass.stride[2] - pass.pad[2], box);
      __syncthreads();
      for (int tap0 = 0; tap0 < plane_taps; tap0 += kTapChunk) {
        const int count = min(kTapChunk, plane_taps - tap0);
        A sum[kTapChunk] = {};
        const int row_step = pass.dilation[1] * pitch, col_step = pass.dilation[2];
        if (rows == STRIP)
          add_taps<STRIP, true>(sum, grad, line, rows, count, tap0, pass.kernel[2], row_step,
                                col_step);
        else
          add_taps<STRIP, false>(sum, grad, line, rows, count, tap0, pass.kernel[2], row_step,
                                 col_step);
        warp_sum_scatter<kTapChunk>(sum);
        constexpr int kSame = 32 / kTapChunk;  // lanes with the same total
        if (lane % kSame == 0 && lane / kSame < count)
          totals[warp * taps + tap_depth * plane_taps + tap0 + lane / kSame] += sum[0];
      }
    }
  }

  // The warps in order.
  __syncthreads();
  for (int tap = threadIdx.x; tap < taps; tap += kThreads) {
    A all = totals[tap];
    for (int other = 1; other < kWarps; ++other) all += totals[other * taps + tap];
    if (pass.partial)
      pass.partial[(part * pass.channels + k) * taps + tap] = all;
    else
      pass.result[k * taps + tap] = narrow<T>(all);
  }
}

template <class T>
void conv_wgrad_depthwise(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const DepthwiseSplit own(s);
  const ConvSplit split = own.split.in(args.workspace);
  const DepthwiseTile& tile = own.tile;
  DepthwiseWgrad<T> pass{};
  pass.x = args.x, pass.grad_y = args.grad_y, pass.result = args.result;
  pass.partial = split.parts > 1 ? reinterpret_cast<Acc<T>*>(args.workspace) : nullptr;
  pass.images = s.n, pass.channels = s.k, pass.x_channels = s.c;
  pass.units = own.units, pass.part_units = split.part_size;
  pass.multiplier = static_cast<int>(s.k_per_group());
  for (int axis = 0; axis < 3; ++axis) {
    pass.y_size[axis] = static_cast<int>(s.out[axis]);
    pass.kernel[axis] = static_cast<int>(s.kernel[axis]);
    pass.stride[axis] = static_cast<int>(s.stride[axis]);
    pass.dilation[axis] = static_cast<int>(s.dilation[axis]);
    pass.pad[axis] = static_cast<int>(s.pad[axis]);
  }
  pass.x_depth = static_cast<int>(s.in[0]);
  pass.box = make_box(tile, s.in[1], s.in[2]);
  pass.tile_rows = static_cast<int>(tile.rows()), pass.tile_cols = static_cast<int>(tile.cols);
  pass.row_tiles = static_cast<int>(ceil_div(tile.size[0], tile.rows()));
  pass.col_tiles = static_cast<int>(ceil_div(tile.size[1], tile.cols));
  launch(tile.strip == 1 ? conv_depthwise_wgrad_kernel<T, 1> : conv_depthwise_wgrad_kernel<T, 8>,
         grid_size(s.k * split.parts), kThreads, static_cast<size_t>(own.elements) * sizeof(Acc<T>),
         pass);
  if (pass.partial) add_partial_sums<T>(pass.partial, args.result, s.weight_elems(), split.parts);
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_depthwise, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_depthwise, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_depthwise, ConvArgs)

}  // namespace lamina::cuda
