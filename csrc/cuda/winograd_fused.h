// F(2x2, 3x3) in one kernel behind the filters' transforms: V and M never leave the multiprocessor.
//
// Method        a thread block owns 32 tiles and 8 TK output channels of a group. For kDepth input
//               channels at a time each warp transforms the tiles of one channel into shared
//               memory, while cp.async brings U; two stages, one barrier each. A warp multiplies
//               two of the sixteen elements, TK x 8 sums a thread. At the end the sums change
//               places through shared memory, so that a thread has all elements of its tile.
// Source        Yan et al. 2020, Castro et al. 2021 (openCNN): the same division of the elements
//               among warps.
// Floor         16 products for 36: FMA bound from about 32 output channels on.
#pragma once

#include "cuda/winograd.h"

namespace lamina::cuda {

template <class A, int TK_>
struct FusedTile {
  static constexpr int V = kWide<A>, TK = TK_, TT = 8;
  static constexpr int kElements = 16, kTiles = 4 * TT, kOutputs = 8 * TK;
  static constexpr int kDepth = sizeof(A) == sizeof(double) ? 4 : 8;
  static constexpr int kFilters = kElements * kDepth * kOutputs;
  static constexpr int kInputs = kElements * kDepth * kTiles;
  // The exchange of sums: 8 V output channels a round, rows without bank conflicts.
  static constexpr int kRounds = TK / V, kPitch = 9 * V;
  static constexpr int kExchange = kElements * kTiles * kPitch;
  static constexpr int kStages = 2 * (kFilters + kInputs);
  static constexpr size_t kSharedBytes = (kStages > kExchange ? kStages : kExchange) * sizeof(A);
  static_assert(kTiles == 32 && kWinogradWarps * 2 == kElements && kDepth <= kWinogradWarps);
};

// U [e][group][input][pitch], and how the channels of a group are divided among blocks.
template <class A>
struct FusedFilters {
  const A* u;
  int64_t pitch;
  int groups, inputs, outputs;  // channels of a group
  unsigned output_blocks;
};

// Two blocks of the small tile hide each other's loads where the registers suffice; a single one
// fetches a stage ahead.
template <class T, int TK>
inline constexpr bool kTwoFusedBlocks = TK == 4 && sizeof(T) == sizeof(float);

template <class T, int TK>
__global__ void __launch_bounds__(kWinogradThreads, kTwoFusedBlocks<T, TK> ? 2 : 1)
    winograd_fused_kernel(BlockTiles in, BlockTiles out, FusedFilters<Acc<T>> filters,
                          const T* __restrict__ x, const T* __restrict__ bias, T* __restrict__ y,
                          const __grid_constant__ Finish<T> finish, RowRead read, bool wide) {
  using A = Acc<T>;
  using Tile = FusedTile<A, TK>;
  constexpr int V = Tile::V, TT = Tile::TT, kDepth = Tile::kDepth;
  SIMT_DYNAMIC_SHARED(A, shared);
  A* const stages_u = shared;                       // [2][e][kDepth][kOutputs]
  A* const stages_v = shared + 2 * Tile::kFilters;  // [2][e][kDepth][kTiles]
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);

  // Blocks of the same tiles run together: they share x.
  const int output0 = static_cast<int>(blockIdx.x % filters.output_blocks) * Tile::kOutputs;
  const unsigned tile_blocks = (in.count + 31) / 32, rest = blockIdx.x / filters.output_blocks;
  const unsigned t = rest % tile_blocks * 32 + lane;
  const int64_t group = rest / tile_blocks;

  // The tile of this lane.
  const unsigned local = in.first_tile + t, place = local % in.tiles_image;
  const int64_t image = in.first_image + local / in.tiles_image;
  const int h = static_cast<int>(place / in.tiles_w) * 2,
            w = static_cast<int>(place % in.tiles_w) * 2;
  const TileInside inside(in, 4, h - in.pad_h, w - in.pad_w, t < in.count);
  const int64_t plane = int64_t{in.height} * in.width;
  const T* const corner = x + (image * in.channels + group * filters.inputs + warp) * plane +
                          (int64_t{h - in.pad_h} * in.width + (w - in.pad_w));

  A patch[4][4];
  const auto fetch_patch = [&](int c0) {
    TileInside mine = inside;
    if (warp >= kDepth || c0 + warp >= filters.inputs) mine.rows = 0;
    load_tile<4>(corner + c0 * plane, in.width, mine, read, patch);
  };
  const auto put_patch = [&](int stage) {
    if (warp >= kDepth) return;
    A transformed[4][4];
    winograd::both_axes<4, 4>(patch, transformed, InputLine());
    A* const to = stages_v + stage * Tile::kInputs + warp * Tile::kTiles + lane;
#pragma unroll
    for (int e = 0; e < 16; ++e) to[e * kDepth * Tile::kTiles] = transformed[e / 4][e % 4];
  };
  // Rows of kOutputs: thread by thread in sixteen bytes; every step of the loop is whole elements.
  constexpr int kVectors = Tile::kOutputs / V, kRows = kWinogradThreads / kVectors;
  constexpr int kSteps = Tile::kElements * kDepth / kRows;
  static_assert(kRows % kDepth == 0);
  const int row = static_cast<int>(threadIdx.x) / kVectors, u_depth = row % kDepth;
  const int u_output = static_cast<int>(threadIdx.x) % kVectors * V;
  const int64_t element = int64_t{filters.groups} * filters.inputs * filters.pitch;
  const bool u_inside = output0 + u_output < filters.pitch;
  const A* const from_u = filters.u + row / kDepth * element +
                          (group * filters.inputs + u_depth) * filters.pitch + output0 + u_output;
  const auto copy_filters = [&](int stage, int c0) {
    A* const to = stages_u + stage * Tile::kFilters + row * Tile::kOutputs + u_output;
    const bool any = u_inside && c0 + u_depth < filters.inputs;
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
      simt::cp_async<16>(
          to + i * kRows * Tile::kOutputs,
          any ? from_u + c0 * filters.pitch + i * (kRows / kDepth) * element : filters.u,
          any ? 16 : 0);
    simt::cp_async_commit();
  };

  [[maybe_unused]] constexpr int kUnrolled =
      kTwoFusedBlocks<T, TK> ? 2 : 4;  // what the registers allow
  A sum[2][TK][TT] = {};
  const int lane_k = lane % 8 * V, lane_t = lane / 8 * V;
  copy_filters(0, 0);
  fetch_patch(0);
  put_patch(0);
  for (int c0 = 0, stage = 0; c0 < filters.inputs; c0 += kDepth, stage ^= 1) {
    simt::cp_async_wait<0>();
    __syncthreads();  // this stage has landed; everybody has left the other one
    const bool more = c0 + kDepth < filters.inputs;
    if (more) copy_filters(stage ^ 1, c0 + kDepth);
    if (more && !kTwoFusedBlocks<T, TK>) fetch_patch(c0 + kDepth);
#pragma unroll kUnrolled
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int slice = (2 * warp + e) * kDepth + d;
        const A* const from_k = stages_u + stage * Tile::kFilters + slice * Tile::kOutputs + lane_k;
        const A* const from_t = stages_v + stage * Tile::kInputs + slice * Tile::kTiles + lane_t;
        Vector<A, V> left[TK / V], right[TT / V];
#pragma unroll
        for (int i = 0; i < TK / V; ++i) left[i] = load<A, V>(from_k + i * 8 * V);
#pragma unroll
        for (int j = 0; j < TT / V; ++j) right[j] = load<A, V>(from_t + j * 4 * V);
#pragma unroll
        for (int i = 0; i < TK; ++i)
#pragma unroll
          for (int j = 0; j < TT; ++j)
            sum[e][i][j] =
                fma(left[i / V].element[i % V], right[j / V].element[j % V], sum[e][i][j]);
      }
    if (more && kTwoFusedBlocks<T, TK>) fetch_patch(c0 + kDepth);
    if (more) put_patch(stage ^ 1);
  }
  simt::cp_async_wait<0>();  // without input channels the first stage is still on its way

  // sums [e][tile][8 V outputs], a round for every V outputs of a thread
#pragma unroll
  for (int round = 0; round < Tile::kRounds; ++round) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int j = 0; j < TT; ++j) {
        const int tile = j / V * (4 * V) + lane_t + j % V;
        Vector<A, V> outputs;
#pragma unroll
        for (int l = 0; l < V; ++l) outputs.element[l] = sum[e][round * V + l][j];
        store<A, V>(shared + ((2 * warp + e) * Tile::kTiles + tile) * Tile::kPitch + lane_k,
                    outputs);
      }
    __syncthreads();
    Vector<A, V> elements[16];
#pragma unroll
    for (int e = 0; e < 16; ++e)
      elements[e] = load<A, V>(shared + (e * Tile::kTiles + lane) * Tile::kPitch + warp * V);
#pragma unroll
    for (int l = 0; l < V; ++l) {
      const int output = output0 + round * 8 * V + warp * V + l;
      if (t >= out.count || output >= filters.outputs) continue;
      A m[4][4], results[2][2];
#pragma unroll
      for (int e = 0; e < 16; ++e) m[e / 4][e % 4] = elements[e].element[l];
      winograd::both_axes<4, 2>(m, results, OutputLine());
      const int64_t channel = group * filters.outputs + output;
      store_tile<T, 2>(out, h, w, wide, results, bias ? widen(bias[channel]) : A(0), y,
                       (image * out.channels + channel) * (int64_t{out.height} * out.width),
                       finish);
    }
  }
}

template <class T, int TK>
void launch_fused(const BlockTiles& in, const BlockTiles& out, FusedFilters<Acc<T>> filters,
                  const T* x, const T* bias, T* y, const Finish<T>& finish, bool wide) {
  using Tile = FusedTile<Acc<T>, TK>;
  const int64_t output_blocks = ceil_div(filters.outputs, Tile::kOutputs);
  filters.output_blocks = static_cast<unsigned>(output_blocks);
  launch(winograd_fused_kernel<T, TK>,
         grid_size(output_blocks * ceil_div(in.count, Tile::kTiles) * filters.groups),
         kWinogradThreads, Tile::kSharedBytes, in, out, filters, x, bias, y, finish,
         row_read(in, x), wide);
}

// y = f(the convolution of the tiles with the transformed filters u, + bias).
template <class T>
void run_fused(const BlockTiles& in, const BlockTiles& out, int groups, int64_t pitch, const T* x,
               const Acc<T>* u, const T* bias, T* y, const Finish<T>& finish, bool wide) {
  const FusedFilters<Acc<T>> filters{u, pitch, groups, in.channels / groups, out.channels / groups,
                                     0};
  // Output channels in blocks of 64, or of 32 where the last block of 64 would be half empty.
  if constexpr (sizeof(T) < sizeof(double)) {
    if ((filters.outputs - 1) % 64 >= 32)
      return launch_fused<T, 8>(in, out, filters, x, bias, y, finish, wide);
  }
  launch_fused<T, 4>(in, out, filters, x, bias, y, finish, wide);
}

}  // namespace lamina::cuda
