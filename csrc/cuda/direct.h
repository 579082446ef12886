// The direct sum on a GPU, for conv `direct`: no unrolled matrix, any geometry.
//
// Method        fprop and the stride phases of dgrad: a thread holds Outputs sums of each of
//               Positions output positions. The filter values of a few channels and taps lie in
//               shared memory, every lane reads the same one; x comes through the L1 cache, which
//               serves the overlap of the taps. Bounds are checked once a tap, for all channels.
//               wgrad: lanes are positions, a warp holds the sums of Outputs output channels times
//               Pairs pairs (channel, tap) and adds its lanes up at the end.
// Partitioning  blocks of positions of all images, times groups, times Outputs; wgrad: blocks of
//               outputs and pairs, and parts of the positions that a second pass adds in order.
// Numerics      an output sums chunks of channels in order, within a chunk tap by tap.
// Floor         multiply-adds; shared and L1 reads are a third of them at 16 x 4 sums a thread.
#pragma once

#include "cuda/device/finish.h"
#include "cuda/device/partial_sums.h"
#include "cuda/device/reduce.h"
#include "cuda/device/vector.h"
#include "shared/conv_phase.h"
#include "shared/conv_split.h"

namespace lamina::cuda {

// Index is int where every offset and coordinate fits it, else int64_t.
template <class Index>
struct DirectShape {
  Index in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
  Index groups, channels, outputs;  // channels and outputs of a group
  Index positions, in_size, taps;   // positions of all images
};

template <class Index>
DirectShape<Index> direct_shape(const ops::ConvShape& s) {
  DirectShape<Index> shape{};
  for (int axis = 0; axis < 3; ++axis) {
    shape.in[axis] = static_cast<Index>(s.in[axis]);
    shape.out[axis] = static_cast<Index>(s.out[axis]);
    shape.kernel[axis] = static_cast<Index>(s.kernel[axis]);
    shape.stride[axis] = static_cast<Index>(s.stride[axis]);
    shape.pad[axis] = static_cast<Index>(s.pad[axis]);
    shape.dilation[axis] = static_cast<Index>(s.dilation[axis]);
  }
  shape.groups = static_cast<Index>(s.groups);
  shape.channels = static_cast<Index>(s.c_per_group());
  shape.outputs = static_cast<Index>(s.k_per_group());
  shape.positions = static_cast<Index>(s.n * s.out_size());
  shape.in_size = static_cast<Index>(s.in_size());
  shape.taps = static_cast<Index>(s.kernel_size());
  return shape;
}

// Whether all coordinates, also those outside x, and all offsets made of them fit an int, in bytes
// an unsigned.
inline bool fits_int(const ops::ConvShape& s) {
  double reach = static_cast<double>(s.n) * static_cast<double>(s.c > s.k ? s.c : s.k);
  for (int axis = 0; axis < 3; ++axis)
    reach *= static_cast<double>(s.in[axis]) + static_cast<double>(s.out[axis] * s.stride[axis]) +
             static_cast<double>(s.pad[axis] < 0 ? -s.pad[axis] : s.pad[axis]) +
             static_cast<double>(s.kernel[axis] * s.dilation[axis]);
  return reach < 0x1p29 && static_cast<double>(s.weight_elems()) < 0x1p29;
}

// Offsets in bytes without a sign: added to a base that all threads share, they cost no
// instruction.
template <class Index>
using Bytes = std::make_unsigned_t<Index>;

template <class T, class Index>
__device__ __forceinline__ Bytes<Index> byte_offset(Index elements) {
  return static_cast<Bytes<Index>>(elements) * static_cast<Bytes<Index>>(sizeof(T));
}
template <class T, class Offset>
__device__ __forceinline__ T load_at(const T* base, Offset bytes) {
  return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(base) + bytes);
}

// Whether 0 <= i < extent.
template <class Index>
__device__ __forceinline__ bool within(Index i, Index extent) {
  return static_cast<Bytes<Index>>(i) < static_cast<Bytes<Index>>(extent);
}

// Where an output position lies and reads: its image, the first tap's coordinates.
template <class Index>
struct DirectPosition {
  Index n, out[3], in[3];

  __device__ __forceinline__ DirectPosition(const DirectShape<Index>& s, Index position) {
    for (int axis = 2; axis >= 0; --axis) {
      const Index rest = position / s.out[axis];
      out[axis] = position - rest * s.out[axis];
      in[axis] = out[axis] * s.stride[axis] - s.pad[axis];
      position = rest;
    }
    n = position;
  }
  __device__ __forceinline__ Index offset(const DirectShape<Index>& s) const {
    return (in[0] * s.in[1] + in[1]) * s.in[2] + in[2];
  }
};

// ---- fprop, and the phases of dgrad

// What distinguishes fprop from a phase of dgrad: how weights and results are addressed.
template <class T, class Index>
struct DirectPass {
  DirectShape<Index> shape;
  const T* x;  // [n][groups][channels][in]
  const T* weight;
  const T* bias;  // [groups][outputs] or null
  T* y;
  Finish<T> finish;
  Index weight_output, weight_channel;         // steps in the weights of a group
  Index filter[3], tap_first[3], tap_step[3];  // tap t is tap_first + t * tap_step of the filter
  Index y_size[3], y_first[3], y_step[3];      // position o is y_first + o * y_step of the result
  int chunk_channels, chunk_taps;              // filter values in shared memory at a time
};

static constexpr int kDirectThreads = 128;
static constexpr int kFilterRows = 192;   // pairs (channel, tap) in shared memory at most
static constexpr int kChunkChannels = 8;  // their x of all taps should stay in the L1 cache

// Blocks on a multiprocessor: registers for the sums first, then for more threads.
template <class A, class Index, int OUTPUTS>
inline constexpr int kDirectBlocks = sizeof(Index) == 4 && OUTPUTS * sizeof(A) <= 16 ? 6 : 3;

template <class T, class Index, int OUTPUTS, int POSITIONS>
__global__ void __launch_bounds__(kDirectThreads, (kDirectBlocks<Acc<T>, Index, OUTPUTS>))
    conv_direct_kernel(const __grid_constant__ DirectPass<T, Index> pass) {
  using A = Acc<T>;
  constexpr int kLanes = kWide<A>, kVectors = OUTPUTS / kLanes;
  const DirectShape<Index>& s = pass.shape;
  // [vector of outputs][channel, tap][lane]
  __shared__ __align__(16) A filter[kVectors * kFilterRows * kLanes];

  // The block's outputs and positions; positions beyond the last repeat it and are not stored.
  const Index output_blocks = (s.outputs + OUTPUTS - 1) / OUTPUTS;
  const Index k0 = static_cast<Index>(blockIdx.x) % output_blocks * OUTPUTS;
  const Index group = static_cast<Index>(blockIdx.x) / output_blocks % s.groups;
  const Index first =
      static_cast<Index>(blockIdx.x) / (output_blocks * s.groups) * (kDirectThreads * POSITIONS) +
      static_cast<Index>(threadIdx.x);
  const T* weight = pass.weight + group * s.outputs * s.channels * pass.filter[0] * pass.filter[1] *
                                      pass.filter[2];
  Index at[POSITIONS], i0[POSITIONS], i1[POSITIONS], i2[POSITIONS];
#pragma unroll
  for (int p = 0; p < POSITIONS; ++p) {
    const DirectPosition<Index> position(s, min(first + p * kDirectThreads, s.positions - 1));
    at[p] = (position.n * s.groups + group) * s.channels * s.in_size + position.offset(s);
    i0[p] = position.in[0], i1[p] = position.in[1], i2[p] = position.in[2];
  }

  A sum[OUTPUTS][POSITIONS] = {};
  for (Index c0 = 0; c0 < s.channels; c0 += pass.chunk_channels) {
    const int channels = static_cast<int>(min(Index(pass.chunk_channels), s.channels - c0));
    for (Index tap0 = 0; tap0 < s.taps; tap0 += pass.chunk_taps) {
      const int taps = static_cast<int>(min(Index(pass.chunk_taps), s.taps - tap0));

      // Filter values: neighbouring lanes load neighbouring taps and store whole vectors.
      __syncthreads();  // the previous chunk has been read
      for (int e = threadIdx.x; e < kVectors * channels * taps; e += kDirectThreads) {
        const int row = e % (channels * taps), v = e / (channels * taps);
        const Index tap = tap0 + row % taps, rest = tap / s.kernel[2];
        const Index f0 = pass.tap_first[0] + rest / s.kernel[1] * pass.tap_step[0];
        const Index f1 = pass.tap_first[1] + rest % s.kernel[1] * pass.tap_step[1];
        const Index f2 = pass.tap_first[2] + tap % s.kernel[2] * pass.tap_step[2];
        const T* from = weight + (k0 + v * kLanes) * pass.weight_output +
                        (c0 + row / taps) * pass.weight_channel +
                        (f0 * pass.filter[1] + f1) * pass.filter[2] + f2;
        Vector<A, kLanes> factor;
#pragma unroll
        for (int i = 0; i < kLanes; ++i)
          factor.element[i] =
              k0 + v * kLanes + i < s.outputs ? widen(from[i * pass.weight_output]) : A(0);
        store<A, kLanes>(filter + (v * kFilterRows + row) * kLanes, factor);
      }
      __syncthreads();

      // Tap by tap: the offset and the bounds hold for all channels.
      Index t2 = tap0 % s.kernel[2], t1 = tap0 / s.kernel[2] % s.kernel[1];
      Index t0 = tap0 / (s.kernel[1] * s.kernel[2]);
      for (int tap = 0; tap < taps; ++tap) {
        const A* row = filter + tap * kLanes;
        const Index d0 = t0 * s.dilation[0], d1 = t1 * s.dilation[1], d2 = t2 * s.dilation[2];
        const Index shift = (d0 * s.in[1] + d1) * s.in[2] + d2;
        bool inside[POSITIONS];
        Bytes<Index> offset[POSITIONS];
#pragma unroll
        for (int p = 0; p < POSITIONS; ++p) {
          inside[p] = within(i0[p] + d0, s.in[0]) && within(i1[p] + d1, s.in[1]) &&
                      within(i2[p] + d2, s.in[2]);
          offset[p] = byte_offset<T>(at[p] + shift);
        }
        const T* source = pass.x + c0 * s.in_size;
#pragma unroll 2
        for (int c = 0; c < channels; ++c, row += taps * kLanes, source += s.in_size) {
          A value[POSITIONS];
#pragma unroll
          for (int p = 0; p < POSITIONS; ++p)
            value[p] = inside[p] ? widen(load_at(source, offset[p])) : A(0);
#pragma unroll
          for (int v = 0; v < kVectors; ++v) {
            const Vector<A, kLanes> factor = load<A, kLanes>(row + v * kFilterRows * kLanes);
#pragma unroll
            for (int i = 0; i < kLanes; ++i)
#pragma unroll
              for (int p = 0; p < POSITIONS; ++p)
                sum[v * kLanes + i][p] += factor.element[i] * value[p];
          }
        }
        if (++t2 == s.kernel[2]) {
          t2 = 0;
          if (++t1 == s.kernel[1]) t1 = 0, ++t0;
        }
      }
    }
  }

  const Index y_plane = pass.y_size[0] * pass.y_size[1] * pass.y_size[2];
#pragma unroll
  for (int p = 0; p < POSITIONS; ++p) {
    if (first + p * kDirectThreads >= s.positions) continue;
    const DirectPosition<Index> position(s, first + p * kDirectThreads);
    Index to = 0;
    for (int axis = 0; axis < 3; ++axis)
      to = to * pass.y_size[axis] + pass.y_first[axis] + position.out[axis] * pass.y_step[axis];
    to += ((position.n * s.groups + group) * s.outputs + k0) * y_plane;
#pragma unroll
    for (int k = 0; k < OUTPUTS; ++k)
      if (k0 + k < s.outputs) {
        const A bias = pass.bias ? widen(pass.bias[group * s.outputs + k0 + k]) : A(0);
        pass.y[to + k * y_plane] = pass.finish(sum[k][p] + bias, to + k * y_plane);
      }
  }
}

template <int OUTPUTS, int POSITIONS, class T, class Index>
void launch_direct(const DirectPass<T, Index>& pass) {
  const int64_t outputs = ceil_div(pass.shape.outputs, OUTPUTS);
  const int64_t positions = ceil_div(pass.shape.positions, kDirectThreads * POSITIONS);
  launch(conv_direct_kernel<T, Index, OUTPUTS, POSITIONS>,
         grid_size(positions * pass.shape.groups * outputs), kDirectThreads, 0, pass);
}

template <class Index, class T>
void run_direct(const ops::ConvArgs<T>& args, const ConvPhase* phase) {
  const ops::ConvShape& s = args.shape;
  const ops::ConvShape& own = phase ? phase->shape : s;
  if (own.out_size() == 0) return;
  const int64_t taps = s.kernel_size(), c_taps = s.c_per_group() * taps;
  DirectPass<T, Index> pass{};
  pass.shape = direct_shape<Index>(own);
  pass.x = phase ? args.grad_y : args.x;
  pass.weight = args.weight, pass.bias = args.bias, pass.y = args.result;
  pass.finish = Finish<T>(args.epilogue);
  pass.weight_output = static_cast<Index>(phase ? taps : c_taps);
  pass.weight_channel = static_cast<Index>(phase ? c_taps : taps);
  for (int axis = 0; axis < 3; ++axis) {
    pass.filter[axis] = static_cast<Index>(s.kernel[axis]);
    pass.tap_first[axis] = static_cast<Index>(phase ? phase->first[axis] : 0);
    pass.tap_step[axis] = static_cast<Index>(phase ? -phase->step[axis] : 1);
    pass.y_size[axis] = static_cast<Index>(phase ? s.in[axis] : s.out[axis]);
    pass.y_first[axis] = static_cast<Index>(phase ? phase->offset[axis] : 0);
    pass.y_step[axis] = static_cast<Index>(phase ? s.stride[axis] : 1);
  }
  const int64_t own_taps = max(own.kernel_size(), int64_t{1});
  pass.chunk_channels = static_cast<int>(max(
      int64_t{1}, min(min(kFilterRows / own_taps, int64_t{kChunkChannels}), own.c_per_group())));
  pass.chunk_taps = static_cast<int>(min(own_taps, int64_t{kFilterRows / pass.chunk_channels}));
  // Fewer positions a thread where these blocks would not reach every multiprocessor.
  constexpr int kOutputs = 4 * kWide<Acc<T>>;
  constexpr int64_t kFewBlocks = 132;
  const int64_t blocks = own.groups * ceil_div(own.k_per_group(), kOutputs) *
                         ceil_div(own.n * own.out_size(), kDirectThreads * 4);
  if constexpr (sizeof(Index) == sizeof(int))
    if (own.k_per_group() > 4)
      return blocks < kFewBlocks ? launch_direct<kOutputs, 1>(pass)
                                 : launch_direct<kOutputs, 4>(pass);
  launch_direct<4, 4>(pass);
}

template <class T>
void direct_fprop(const ops::ConvArgs<T>& args) {
  if (fits_int(args.shape))
    run_direct<int>(args, nullptr);
  else
    run_direct<int64_t>(args, nullptr);
}

// One launch a phase; a phase that no tap reaches stores the bias or zero.
template <class T>
void direct_dgrad(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  int64_t phases[3];
  for (int axis = 0; axis < 3; ++axis) phases[axis] = min(s.stride[axis], s.in[axis]);
  for (int64_t f0 = 0; f0 < phases[0]; ++f0)
    for (int64_t f1 = 0; f1 < phases[1]; ++f1)
      for (int64_t f2 = 0; f2 < phases[2]; ++f2) {
        const ConvPhase phase = conv_phase(s, (f0 * s.stride[1] + f1) * s.stride[2] + f2);
        if (fits_int(s) && fits_int(phase.shape))
          run_direct<int>(args, &phase);
        else
          run_direct<int64_t>(args, &phase);
      }
}

// ---- wgrad

template <class T, class Index>
struct DirectWgrad {
  DirectShape<Index> shape;
  const T* x;
  const T* grad_y;
  T* result;        // one part
  Acc<T>* partial;  // several: [part][result]
  int64_t weight_elems;
  Index part_size;
  int pair_warps;  // warps of a block with pairs of their own; the others share positions
};

static constexpr int kWgradThreads = 256, kWgradWarps = kWgradThreads / 32;

template <class T, class Index, int OUTPUTS, int PAIRS>
__global__ void __launch_bounds__(kWgradThreads)
    conv_direct_wgrad_kernel(const __grid_constant__ DirectWgrad<T, Index> pass) {
  using A = Acc<T>;
  constexpr int kSums = OUTPUTS * PAIRS;
  const DirectShape<Index>& s = pass.shape;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int pair_warp = warp % pass.pair_warps, position_warp = warp / pass.pair_warps;
  const int position_warps = kWgradWarps / pass.pair_warps;

  // The block's part of the positions, group, output channels and pairs.
  const Index pairs = s.channels * s.taps, block_pairs = pass.pair_warps * PAIRS;
  const Index pair_blocks = (pairs + block_pairs - 1) / block_pairs;
  const Index output_blocks = (s.outputs + OUTPUTS - 1) / OUTPUTS;
  Index block = static_cast<Index>(blockIdx.x);
  const Index pair_first = block % pair_blocks * block_pairs;
  block /= pair_blocks;
  const Index k0 = block % output_blocks * OUTPUTS;
  block /= output_blocks;
  const Index group = block % s.groups, part = block / s.groups;
  const Index end = min((part + 1) * pass.part_size, s.positions);

  // A pair beyond the last repeats it and is neither loaded nor stored.
  const int own_pairs = static_cast<int>(min(Index(PAIRS), pairs - pair_first - pair_warp * PAIRS));
  Index shift[PAIRS], d0[PAIRS], d1[PAIRS], d2[PAIRS];
#pragma unroll
  for (int j = 0; j < PAIRS; ++j) {
    const Index pair = min(pair_first + pair_warp * PAIRS + j, pairs - 1);
    const Index c = pair / s.taps, tap = pair % s.taps, rest = tap / s.kernel[2];
    d0[j] = rest / s.kernel[1] * s.dilation[0];
    d1[j] = rest % s.kernel[1] * s.dilation[1];
    d2[j] = tap % s.kernel[2] * s.dilation[2];
    shift[j] = (group * s.channels + c) * s.in_size + (d0[j] * s.in[1] + d1[j]) * s.in[2] + d2[j];
  }

  // A lane's positions are `stride` apart: its coordinates advance digit by digit, with carries.
  const Index out_size = s.out[0] * s.out[1] * s.out[2], stride = 32 * position_warps;
  const Index step2 = stride % s.out[2], step1 = stride / s.out[2] % s.out[1];
  const Index step0 = stride / (s.out[2] * s.out[1]) % s.out[0], step_n = stride / out_size;
  Index m = part * pass.part_size + position_warp * 32 + lane;
  const DirectPosition<Index> start(s, min(m, s.positions - 1));
  Index n = start.n, o0 = start.out[0], o1 = start.out[1], o2 = start.out[2];

  // An output beyond the last repeats it and is not stored.
  const T* grad_y = pass.grad_y + (group * s.outputs + k0) * out_size;
  const Index last_output = s.outputs - 1 - k0;
  A sum[kSums] = {};
  for (; own_pairs > 0 && m < end; m += stride) {
    const Index i0 = o0 * s.stride[0] - s.pad[0], i1 = o1 * s.stride[1] - s.pad[1];
    const Index i2 = o2 * s.stride[2] - s.pad[2];
    const Index at = n * s.groups * s.channels * s.in_size + (i0 * s.in[1] + i1) * s.in[2] + i2;
    A value[PAIRS];
#pragma unroll
    for (int j = 0; j < PAIRS; ++j) {
      const bool inside = j < own_pairs && within(i0 + d0[j], s.in[0]) &&
                          within(i1 + d1[j], s.in[1]) && within(i2 + d2[j], s.in[2]);
      value[j] = inside ? widen(load_at(pass.x, byte_offset<T>(at + shift[j]))) : A(0);
    }
    // Position m of channel k of image n is n (k_all - 1) + k planes after element m.
    const Bytes<Index> position = byte_offset<T>(m + n * (s.groups * s.outputs - 1) * out_size);
#pragma unroll
    for (int k = 0; k < OUTPUTS; ++k) {
      const A grad = widen(load_at(grad_y + min(Index(k), last_output) * out_size, position));
#pragma unroll
      for (int j = 0; j < PAIRS; ++j) sum[k * PAIRS + j] += grad * value[j];
    }
    o2 += step2, o1 += step1, o0 += step0, n += step_n;
    if (o2 >= s.out[2]) o2 -= s.out[2], ++o1;
    if (o1 >= s.out[1]) o1 -= s.out[1], ++o0;
    if (o0 >= s.out[0]) o0 -= s.out[0], ++n;
  }

  // Lanes, then the warps of the same pairs, in order.
  __shared__ __align__(16) A total[kWgradWarps][kSums];
  constexpr int kLeft = kSums > 32 ? kSums / 32 : 1, kSame = kSums < 32 ? 32 / kSums : 1;
  warp_sum_scatter<kSums>(sum);
  if (lane % kSame == 0) {
    Vector<A, kLeft> own;
#pragma unroll
    for (int i = 0; i < kLeft; ++i) own.element[i] = sum[i];
    store<A, kLeft>(&total[warp][lane / kSame * kLeft], own);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < pass.pair_warps * kSums; e += kWgradThreads) {
    const int owner = e / kSums, k = e % kSums / PAIRS, j = e % PAIRS;
    A all = total[owner][e % kSums];
    for (int other = 1; other < position_warps; ++other)
      all += total[other * pass.pair_warps + owner][e % kSums];
    const Index pair = pair_first + owner * PAIRS + j;
    if (k0 + k < s.outputs && pair < pairs) {
      const int64_t to = (int64_t{group} * s.outputs + k0 + k) * pairs + pair;
      if (pass.partial)
        pass.partial[part * pass.weight_elems + to] = all;
      else
        pass.result[to] = narrow<T>(all);
    }
  }
}

template <class Index, int OUTPUTS, int PAIRS, class T>
void run_direct_wgrad(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  const ConvSplit split = conv_wgrad_split(s).in(args.workspace);
  DirectWgrad<T, Index> pass{};
  pass.shape = direct_shape<Index>(s);
  pass.x = args.x, pass.grad_y = args.grad_y, pass.result = args.result;
  pass.partial = split.parts > 1 ? reinterpret_cast<Acc<T>*>(args.workspace) : nullptr;
  pass.weight_elems = s.weight_elems();
  pass.part_size = static_cast<Index>(split.part_size);
  const int64_t pairs = s.c_per_group() * s.kernel_size();
  pass.pair_warps = kWgradWarps;
  while (pass.pair_warps > 1 && (pass.pair_warps / 2) * PAIRS >= pairs) pass.pair_warps /= 2;
  const int64_t tiles = s.groups * ceil_div(s.k_per_group(), OUTPUTS) *
                        ceil_div(pairs, int64_t{pass.pair_warps} * PAIRS);
  launch(conv_direct_wgrad_kernel<T, Index, OUTPUTS, PAIRS>, grid_size(tiles * split.parts),
         kWgradThreads, 0, pass);
  if (split.parts > 1)
    add_partial_sums<T>(pass.partial, args.result, pass.weight_elems, split.parts);
}

}  // namespace lamina::cuda
