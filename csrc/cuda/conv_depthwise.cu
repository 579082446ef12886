// conv, depthwise: one input channel a group. The weight gradient is that of cuda/direct.h, one
// output channel at a time.
//
// Method        a block computes a tile of result planes: the box of the source that the tile needs
//               lies in shared memory, padding as zeros, beside the filters. A thread holds a strip
//               of rows of one column. At stride and dilation 1 a window of the strip's height
//               slides down the box: one shared read serves all its products. The input gradient
//               at stride 1 is the same kernel with the filter turned round; at a stride every
//               result gathers the taps that hit it, so that stores stay whole rows.
// Partitioning  planes (image, channel, depth) and tiles of them, see shared/depthwise_tile.h.
// Floor         reads the source and writes the result once.
#include "cuda/direct.h"
#include "cuda/instantiate.h"
#include "shared/depthwise_tile.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;

static constexpr int kThreads = DepthwiseTile::kThreads, kWarps = kThreads / 32;
static constexpr int kMaxPlanes = 64;

enum class Taps { window, strided, gather };

template <class T>
struct DepthwisePass {
  const T* source;
  const T* weight;  // [k][kernel]
  const T* bias;    // one for each result channel, or null
  T* result;
  bool gradient;
  int64_t planes;                     // of the result: images, channels, depths
  int64_t channels, source_channels;  // of the result and the source
  int multiplier;                     // output channels of an input channel
  int result_size[3], source_size[3], kernel[3], stride[3], dilation[3], pad[3];
  int tile_planes, tile_rows, tile_cols;  // results of a block
  int box_rows, box_cols, box_pitch, row_tiles, col_tiles;
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
  A* const box = shared;  // [plane][box_rows][box_pitch]
  const int taps = pass.kernel[1] * pass.kernel[2];
  const int box_size = pass.box_rows * pass.box_pitch;
  A* const filters = shared + pass.tile_planes * box_size;  // [plane][kernel[1]][kernel[2]]
  __shared__ int64_t plane_source[kMaxPlanes];  // first element of the source plane, or -1
  __shared__ int64_t plane_filter[kMaxPlanes];
  __shared__ int first_taps[2][DepthwiseTile::kLargestStride];

  // The block's tile and the box's first row and column.
  const int tile = static_cast<int>(blockIdx.x) % (pass.row_tiles * pass.col_tiles);
  const int64_t plane0 = int64_t{blockIdx.x} / (pass.row_tiles * pass.col_tiles) * pass.tile_planes;
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

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int col = threadIdx.x % pass.tile_cols, rest = threadIdx.x / pass.tile_cols;
  const int strips = pass.tile_rows / STRIP, strip_row = rest % strips * STRIP;
  const int own_plane = rest / strips;
  const bool active = own_plane < pass.tile_planes && plane0 + own_plane < pass.planes &&
                      col0 + col < pass.result_size[2];

  A sum[STRIP] = {};
  const int sources = pass.gradient ? pass.multiplier : 1;
  for (int source = 0; source < sources; ++source)
    for (int tap0 = 0; tap0 < pass.kernel[0]; ++tap0) {
      // Where the planes' sources and filters begin.
      __syncthreads();  // box and filters of the tap before have been read
      if (threadIdx.x < pass.tile_planes) {
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
      __syncthreads();

      // The box: a warp takes every kWarps-th row, four loads under way at a time.
      constexpr int kRows = 4;
      const int rows = pass.tile_planes * pass.box_rows;
      for (int base = warp; base < rows; base += kRows * kWarps) {
        const T* line[kRows];
        bool inside[kRows];
#pragma unroll
        for (int u = 0; u < kRows; ++u) {
          const int row = min(base + u * kWarps, rows - 1), plane = row / pass.box_rows;
          const int i1 = first_row + row - plane * pass.box_rows;
          const int64_t at = plane_source[plane];
          inside[u] = at >= 0 && i1 >= 0 && i1 < pass.source_size[1];
          line[u] = pass.source + (inside[u] ? at + int64_t{i1} * pass.source_size[2] : 0);
        }
        for (int c = lane; c < pass.box_cols; c += 32) {
          const int i2 = first_col + c;
          const bool in_line = i2 >= 0 && i2 < pass.source_size[2];
          A value[kRows];
#pragma unroll
          for (int u = 0; u < kRows; ++u)
            value[u] = inside[u] && in_line ? widen(line[u][i2]) : A(0);
#pragma unroll
          for (int u = 0; u < kRows; ++u)
            if (base + u * kWarps < rows) box[(base + u * kWarps) * pass.box_pitch + c] = value[u];
        }
      }
      // Turned round where the gradient is a convolution.
      const bool turned = pass.gradient && TAPS != Taps::gather;
      for (int e = threadIdx.x; e < pass.tile_planes * taps; e += kThreads) {
        const int plane = e / taps, tap = e - plane * taps;
        filters[turned ? plane * taps + taps - 1 - tap : e] =
            plane_filter[plane] >= 0 ? widen(pass.weight[plane_filter[plane] + tap]) : A(0);
      }
      __syncthreads();

      if (active) {
        const A* filter = filters + own_plane * taps;
        const A* own = box + own_plane * box_size;
        const int pitch = pass.box_pitch;
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
          own += strip_row * pass.stride[1] * pitch + col * pass.stride[2];
          for (int r = 0; r < pass.kernel[1]; ++r)
            for (int s = 0; s < pass.kernel[2]; ++s) {
              const A weight = filter[r * pass.kernel[2] + s];
              const A* x = own + r * pass.dilation[1] * pitch + s * pass.dilation[2];
#pragma unroll
              for (int j = 0; j < STRIP; ++j) sum[j] += weight * x[j * pass.stride[1] * pitch];
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
    T* to = pass.result + (plane * pass.result_size[1] + row) * pass.result_size[2] + col0 + col;
#pragma unroll
    for (int j = 0; j < STRIP; ++j)
      if (row + j < pass.result_size[1])
        to[int64_t{j} * pass.result_size[2]] = narrow<T>(sum[j] + bias);
  }
}

template <class T>
static void run_depthwise(const ConvArgs<T>& args, bool gradient) {
  const ConvShape& s = args.shape;
  const DepthwiseTile tile(s, gradient);
  DepthwisePass<T> pass{};
  pass.source = gradient ? args.grad_y : args.x;
  pass.weight = args.weight, pass.bias = args.bias, pass.result = args.result;
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
  pass.tile_planes = static_cast<int>(tile.planes);
  pass.tile_rows = static_cast<int>(tile.rows()), pass.tile_cols = static_cast<int>(tile.cols);
  pass.box_rows = static_cast<int>(tile.box_rows());
  pass.box_cols = static_cast<int>(tile.box_cols());
  pass.box_pitch = static_cast<int>(tile.box_pitch());
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

template <class T>
void conv_wgrad_depthwise(const ConvArgs<T>& args) {
  if (fits_int(args.shape))
    run_direct_wgrad<int, 1, 16>(args);
  else
    run_direct_wgrad<int64_t, 1, 8>(args);
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_depthwise, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_depthwise, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_depthwise, ConvArgs)

}  // namespace lamina::cuda
