// conv, winograd and winograd4: F(2x2, 3x3), 16 products for 36, and F(4x4, 3x3), 36 products for
// 144. Stride 1, dilation 1, 3x3 filters.
//
//   fprop  M[e][k][t] = sum over c of U[e][c][k] V[e][c][t] for the elements e of a tile t,
//          U = G g G^T, V = B^T d B, y = A^T M A
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//   wgrad  dU[e][k][c] = sum over t of (A dy A^T)[e][k][t] V[e][c][t], grad_weight = G^T dU G
//
// Source        Lavin & Gray 2016.
// Workspace     U (wgrad: dU of every split); but for the fused fprop and dgrad of F(2x2, 3x3)
//               also one block of V and M (shared/winograd_tiles.h). In float or double.
// Method        fprop, dgrad of F(2x2, 3x3): one kernel (winograd_fused.h). Otherwise in stages: a
//               thread transforms one tile of one channel, lanes along tiles: whole sectors of V
//               and M. Filters go through shared memory, which turns their matrices.
// Partitioning  blocks of tiles in order; wgrad's blocks in splits that are added in order.
// Floor         in stages 2 (elements / out^2) of x and y each through L2 beside the products.
// Numerics      adds before it multiplies: about twice the rounding of the direct sum, six times
//               for F(4x4, 3x3); Inf or NaN reaches every output of the tiles it lies in. F(2x2,
//               3x3) is exact on small integers.
#include "cuda/batched_product.h"
#include "cuda/instantiate.h"
#include "cuda/winograd.h"
#include "cuda/winograd_fused.h"
#include "ops/conv.h"
#include "shared/conv_phase.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;
using winograd::Tiles;

static constexpr int kThreads = kWinogradThreads, kWarps = kWinogradWarps;

// ---- transforms

// v[e][channel][t] of the SIDE x SIDE elements of every tile; zeros in the tiles that fill up the
// last warp.
template <class T, int OUT, int SIDE, class Line>
__global__ void __launch_bounds__(kThreads)
    transform_tiles_kernel(BlockTiles tiles, RowRead read, const T* __restrict__ x,
                           Acc<T>* __restrict__ v) {
  constexpr int kTile = OUT + 2;
  const TilePosition place(tiles, OUT);
  if (place.channel >= tiles.channels) return;
  Acc<T> in[SIDE][SIDE], out[kTile][kTile];
  const TileInside inside(tiles, SIDE, place.h, place.w, place.t < tiles.count);
  load_tile<SIDE>(x + place.plane + (int64_t{place.h} * tiles.width + place.w), tiles.width, inside,
                  read, in);
  winograd::both_axes<SIDE, kTile>(in, out, Line());
  Acc<T>* to = v + place.channel * tiles.pitch + place.t;
#pragma unroll
  for (int e = 0; e < kTile * kTile; ++e, to += tiles.channels * tiles.pitch)
    *to = out[e / kTile][e % kTile];
}

// y = f(A^T m A + bias) for the tiles of the block.
template <class T, int OUT>
__global__ void __launch_bounds__(kThreads, 3)
    inverse_tiles_kernel(BlockTiles tiles, const Acc<T>* __restrict__ m, const T* __restrict__ bias,
                         T* __restrict__ y, const __grid_constant__ Finish<T> finish, bool wide) {
  constexpr int kTile = OUT + 2;
  const TilePosition place(tiles, OUT);
  if (place.channel >= tiles.channels || place.t >= tiles.count) return;
  Acc<T> in[kTile][kTile], out[OUT][OUT];
  const Acc<T>* from = m + place.channel * tiles.pitch + place.t;
#pragma unroll
  for (int e = 0; e < kTile * kTile; ++e, from += tiles.channels * tiles.pitch)
    in[e / kTile][e % kTile] = *from;
  winograd::both_axes<kTile, OUT>(in, out, OutputLine());
  store_tile<T, OUT>(tiles, place.h, place.w, wide, out,
                     bias ? widen(bias[place.channel]) : Acc<T>(0), y, place.plane, finish);
}

// How a convolution reads the filters: of fprop [output][input][tap]; of dgrad, whose outputs are
// the input channels, [input][output][tap] with the last tap first.
struct FilterLayout {
  int outputs, inputs;  // channels of a group
  int64_t pitch;        // of U
};

static constexpr int kFilterInputs = kWarps, kFilterOutputs = 32;

// u[e][group][input][output], zeros from outputs to the pitch. A block transforms 32 outputs of 8
// inputs.
template <class T, int OUT, bool TURNED>
__global__ void __launch_bounds__(kThreads)
    transform_filters_kernel(FilterLayout layout, const T* __restrict__ weight,
                             Acc<T>* __restrict__ u, unsigned output_blocks, unsigned input_blocks,
                             int groups) {
  constexpr int kTile = OUT + 2;
  // Rows of the stored order, an odd number of elements apart: no bank conflicts either way.
  constexpr int kRun = 9 * (TURNED ? kFilterOutputs : kFilterInputs), kPitch = kRun | 1;
  constexpr int kRows = TURNED ? kFilterInputs : kFilterOutputs;
  __shared__ Acc<T> taps[kRows * kPitch];
  const unsigned rest = blockIdx.x / output_blocks;
  const int output0 = static_cast<int>(blockIdx.x % output_blocks) * kFilterOutputs;
  const int input0 = static_cast<int>(rest % input_blocks) * kFilterInputs;
  const int64_t group = rest / input_blocks;
  const T* const filters = weight + group * layout.outputs * layout.inputs * 9;
  const int row0 = TURNED ? input0 : output0, column0 = TURNED ? output0 : input0;
  const int rows = TURNED ? layout.inputs : layout.outputs;
  const int columns = TURNED ? layout.outputs : layout.inputs;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kRun; i += kThreads) {
    const int row = i / kRun, at = i % kRun;
    const bool inside = row0 + row < rows && column0 * 9 + at < columns * 9;
    taps[row * kPitch + at] =
        inside ? widen(filters[(int64_t{row0 + row} * columns + column0) * 9 + at]) : Acc<T>(0);
  }
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int output = output0 + lane, input = input0 + warp;
  if (output >= layout.pitch || input >= layout.inputs) return;
  Acc<T> filter[3][3], out[kTile][kTile];
  const Acc<T>* const mine = taps + (TURNED ? warp * kPitch + lane * 9 : lane * kPitch + warp * 9);
#pragma unroll
  for (int r = 0; r < 9; ++r) filter[r / 3][r % 3] = mine[TURNED ? 8 - r : r];
  winograd::both_axes<3, kTile>(filter, out, FilterLine());
  const int64_t matrix = layout.inputs * layout.pitch;
  Acc<T>* to = u + group * matrix + input * layout.pitch + output;
#pragma unroll
  for (int e = 0; e < kTile * kTile; ++e, to += groups * matrix) *to = out[e / kTile][e % kTile];
}

// grad_weight[k][c] = G^T (sum over splits of du[split][e][k][c]) G. A warp takes 32 c of one k.
template <class T, int OUT>
__global__ void __launch_bounds__(kThreads)
    inverse_filters_kernel(const Acc<T>* __restrict__ du, T* __restrict__ grad_weight, int64_t k,
                           int channels, int64_t pitch, int splits, unsigned channel_blocks) {
  constexpr int kTile = OUT + 2;
  __shared__ Acc<T> taps[kWarps][32 * 9];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int channel0 = static_cast<int>(blockIdx.x % channel_blocks) * 32,
            channel = channel0 + lane;
  const int64_t filter = int64_t{blockIdx.x / channel_blocks} * kWarps + warp;
  const bool any = filter < k && channel < channels;
  if (any) {
    Acc<T> in[kTile][kTile], out[3][3];
    const Acc<T>* from = du + filter * pitch + channel;
#pragma unroll
    for (int e = 0; e < kTile * kTile; ++e, from += k * pitch) {
      Acc<T> sum = *from;
      for (int split = 1; split < splits; ++split) sum += from[split * (kTile * kTile) * k * pitch];
      in[e / kTile][e % kTile] = sum;
    }
    winograd::both_axes<kTile, 3>(in, out, FilterGradientLine());
#pragma unroll
    for (int r = 0; r < 9; ++r) taps[warp][lane * 9 + r] = out[r / 3][r % 3];
  }
  __syncwarp();
  if (filter >= k) return;
  const int count = min(32, channels - channel0) * 9;
  T* const to = grad_weight + (filter * channels + channel0) * 9;
  for (int i = lane; i < count; i += 32) to[i] = narrow<T>(taps[warp][i]);
}

// ---- the passes

template <class T, int OUT, int SIDE, class Line>
static void transform_tiles(const BlockTiles& tiles, const T* x, Acc<T>* v) {
  launch(transform_tiles_kernel<T, OUT, SIDE, Line>, tiles.grid(), kThreads, 0, tiles,
         row_read(tiles, x), x, v);
}

template <class T, int OUT, bool TURNED>
static void transform_filters(const ConvShape& s, const Tiles& tiles, const T* weight, Acc<T>* u) {
  const FilterLayout layout{static_cast<int>(s.k_per_group()), static_cast<int>(s.c_per_group()),
                            tiles.filter_pitch};
  const int64_t output_blocks = ceil_div(layout.pitch, kFilterOutputs);
  const int64_t input_blocks = ceil_div(layout.inputs, kFilterInputs);
  launch(transform_filters_kernel<T, OUT, TURNED>,
         grid_size(output_blocks * input_blocks * s.groups), kThreads, 0, layout, weight, u,
         static_cast<unsigned>(output_blocks), static_cast<unsigned>(input_blocks),
         static_cast<int>(s.groups));
}

// Whether every row of every tile of y and of the residual is whole and aligned.
template <class T>
static bool has_wide_tiles(const ConvShape& s, int out, const ConvArgs<T>& args) {
  return s.out[2] % out == 0 && is_wide(args.result, args.epilogue.residual);
}

// F(4x4, 3x3) in stages: one thread block cannot hold the sums of 36 elements.
template <class T, bool TURNED>
static void convolve_staged(const ConvShape& s, const T* x, const ConvArgs<T>& args) {
  using A = Acc<T>;
  constexpr int kOut = 4;
  const Tiles tiles(s, kOut);
  A* const u = reinterpret_cast<A*>(args.workspace);
  A* const v = u + tiles.filter_elements;
  A* const m = v + tiles.input_elements;
  transform_filters<T, kOut, TURNED>(s, tiles, args.weight, u);
  for (int64_t begin = 0; begin < tiles.all; begin += tiles.block) {
    const BlockTiles inputs(tiles, begin, tiles.block, s.c, s.in, s.pad);
    const BlockTiles outputs(tiles, begin, tiles.block, s.k, s.out, nullptr);
    transform_tiles<T, kOut, kOut + 2, InputLine>(inputs, x, v);
    BatchedProduct<A> product;
    product.batch = static_cast<int>(tiles.elements * s.groups);
    product.m = static_cast<int>(s.k_per_group());
    product.depth = static_cast<int>(s.c_per_group());
    product.n = static_cast<int>(outputs.count);
    product.a = u, product.pitch_a = static_cast<int>(tiles.filter_pitch);
    product.b = v, product.pitch_b = static_cast<int>(tiles.pitch);
    product.c = m, product.pitch_c = product.pitch_b;
    product.stride_a = s.c_per_group() * tiles.filter_pitch;
    product.stride_b = s.c_per_group() * tiles.pitch;
    product.stride_c = s.k_per_group() * tiles.pitch;
    run_batched_product<false>(product);
    launch(inverse_tiles_kernel<T, kOut>, outputs.grid(), kThreads, 0, outputs, m, args.bias,
           args.result, Finish<T>(args.epilogue), has_wide_tiles(s, kOut, args));
  }
}

// F(2x2, 3x3): one kernel after the filters' transforms.
template <class T, bool TURNED>
static void convolve(const ConvShape& s, const T* x, const ConvArgs<T>& args) {
  using A = Acc<T>;
  constexpr int64_t kMostTiles = int64_t{1} << 28;  // of a launch: counted in 32 bits
  const Tiles tiles(s, 2);
  A* const u = reinterpret_cast<A*>(args.workspace);
  transform_filters<T, 2, TURNED>(s, tiles, args.weight, u);
  for (int64_t begin = 0; begin < tiles.all; begin += kMostTiles)
    run_fused<T>({tiles, begin, kMostTiles, s.c, s.in, s.pad},
                 {tiles, begin, kMostTiles, s.k, s.out, nullptr}, static_cast<int>(s.groups),
                 tiles.filter_pitch, x, u, args.bias, args.result, Finish<T>(args.epilogue),
                 has_wide_tiles(s, 2, args));
}

template <class T, int OUT>
static void gradient(const ConvArgs<T>& args) {
  using A = Acc<T>;
  const ConvShape& s = args.shape;
  const Tiles tiles(s, OUT);
  const int64_t channels = s.c_per_group();
  A* const du = static_cast<A*>(static_cast<void*>(args.workspace));
  A* const v = du + tiles.splits * tiles.gradient_elements;
  A* const m = v + tiles.input_elements;
  int64_t begin = 0;
  do {  // also without tiles: the product then writes zeros
    const BlockTiles inputs(tiles, begin, tiles.block, s.c, s.in, s.pad);
    const BlockTiles outputs(tiles, begin, tiles.block, s.k, s.out, nullptr);
    transform_tiles<T, OUT, OUT + 2, InputLine>(inputs, args.x, v);
    transform_tiles<T, OUT, OUT, OutputGradientLine>(outputs, args.grad_y, m);
    BatchedProduct<A> product;
    product.batch = static_cast<int>(tiles.elements * s.groups);
    product.m = static_cast<int>(s.k_per_group()), product.n = static_cast<int>(channels);
    product.depth = static_cast<int>(outputs.count);
    product.a = m, product.pitch_a = static_cast<int>(tiles.pitch);
    product.b = v, product.pitch_b = product.pitch_a;
    product.c = du, product.pitch_c = static_cast<int>(tiles.gradient_pitch);
    product.stride_a = s.k_per_group() * tiles.pitch, product.stride_b = channels * tiles.pitch;
    product.stride_c = s.k_per_group() * tiles.gradient_pitch;
    product.splits = static_cast<int>(tiles.splits);
    product.split_depth = static_cast<int>(tiles.split_tiles);
    product.split_stride = tiles.gradient_elements;
    product.accumulate = begin > 0;
    run_batched_product<true>(product);
    begin += tiles.block;
  } while (begin < tiles.all);
  const int64_t channel_blocks = ceil_div(channels, 32);
  launch(inverse_filters_kernel<T, OUT>, grid_size(channel_blocks * ceil_div(s.k, kWarps)),
         kThreads, 0, du, args.result, s.k, static_cast<int>(channels), tiles.gradient_pitch,
         static_cast<int>(tiles.splits), static_cast<unsigned>(channel_blocks));
}

template <class T>
void conv_fprop_winograd(const ConvArgs<T>& args) {
  convolve<T, false>(args.shape, args.x, args);
}
template <class T>
void conv_dgrad_winograd(const ConvArgs<T>& args) {
  convolve<T, true>(conv_phase(args.shape, 0).shape, args.grad_y, args);
}
template <class T>
void conv_wgrad_winograd(const ConvArgs<T>& args) {
  gradient<T, 2>(args);
}
template <class T>
void conv_fprop_winograd4(const ConvArgs<T>& args) {
  convolve_staged<T, false>(args.shape, args.x, args);
}
template <class T>
void conv_dgrad_winograd4(const ConvArgs<T>& args) {
  convolve_staged<T, true>(conv_phase(args.shape, 0).shape, args.grad_y, args);
}
template <class T>
void conv_wgrad_winograd4(const ConvArgs<T>& args) {
  gradient<T, 4>(args);
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_winograd, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_winograd, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_winograd, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_fprop_winograd4, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_winograd4, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_winograd4, ConvArgs)

}  // namespace lamina::cuda
