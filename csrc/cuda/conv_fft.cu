// conv, fft: products of Fourier transforms of overlapping tiles. Stride 1, one or two axes.
//
//   fprop  Y[f][k][t] = sum over c of conj(W[f][c][k]) X[f][c][t] for the frequencies f of tile t
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//   wgrad  DW[f][k][c] = sum over t of conj(DY[f][k][t]) X[f][c][t]
//
// Source        Mathieu et al. 2014; Vasilache et al. 2015. Tiles: overlap-save.
// Workspace     transforms of the filters (wgrad: of their gradient) and of one block of tiles, in
//               planes of real and imaginary parts (shared/fft_blocks.h), in float or double.
// Method        a thread block transforms some tiles of one channel in shared memory
//               (device/tile_fft.h) and writes whole runs of tiles per frequency; products of all
//               frequencies in one launch (batched_product.h).
// Partitioning  blocks of tiles in order; wgrad's blocks in splits that are added in order.
// Numerics      the error follows the largest products of a tile, eps log2(side^2) |x| |w|, not
//               each output; Inf or NaN reaches every output of the tiles it lies in.
#include "cuda/batched_product.h"
#include "cuda/device/finish.h"
#include "cuda/device/tile_fft.h"
#include "cuda/instantiate.h"
#include "ops/conv.h"
#include "shared/conv_phase.h"
#include "shared/fft_blocks.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;

static constexpr int kMostTiles = 32;  // of a thread block

// ---- what is transformed

// Either tiles of planes [n][channels][height][width], or filters: those of one input channel for
// consecutive output channels. A thread block takes tiles of one row: a channel, or the input
// channel of a group.
template <class P>
struct FftSource {
  P* data;
  unsigned count;  // tiles of a row
  int rows, rows_per_group;
  bool filters;
  // Tiles: where they begin, from tile to tile, the part of a tile that is read or written.
  int64_t first_image;
  unsigned first_tile, tiles_w, tiles_image;
  int height, width, pad_h, pad_w, step_h, step_w, size_h, size_w;
  // Filters: steps in elements; taps lie `spread` apart in the tile, the last first if turned.
  int64_t lane_step, row_step, group_step;
  int taps, taps_w, spread_h, spread_w;
  bool turned;

  __device__ __forceinline__ int64_t filter(int row, int64_t lane) const {
    return row / rows_per_group * group_step + row % rows_per_group * row_step + lane * lane_step;
  }
  // Offset of tap i in a tile of complex rows: which pair of rows, which part, which column.
  __device__ __forceinline__ void tap(int i, int& h, int& w) const {
    h = i / taps_w * spread_h, w = i % taps_w * spread_w;
  }
};

// Where the transforms lie: [frequency][group][plane][row of the group][tile].
template <class A>
struct FftMatrices {
  A* data;
  int64_t plane, pitch;
  int groups, planes;

  __device__ __forceinline__ A* at(int f, int group, int row) const {
    return data + (int64_t{f} * groups + group) * planes * plane + row * pitch;
  }
};

// Of the tiles of a thread block: where each lies.
struct TileOrigins {
  int64_t plane[kMostTiles];
  int h[kMostTiles], w[kMostTiles];
};

template <class P>
__device__ __forceinline__ void find_origins(const FftSource<P>& source, int row, unsigned tile0,
                                             int tiles, TileOrigins& origins) {
  if (threadIdx.x < static_cast<unsigned>(tiles)) {
    const unsigned local = source.first_tile + tile0 + threadIdx.x;
    const unsigned image = local / source.tiles_image, rest = local % source.tiles_image;
    origins.plane[threadIdx.x] = ((source.first_image + image) * source.rows + row) *
                                 (int64_t{source.height} * source.width);
    origins.h[threadIdx.x] = static_cast<int>(rest / source.tiles_w) * source.step_h - source.pad_h;
    origins.w[threadIdx.x] = static_cast<int>(rest % source.tiles_w) * source.step_w - source.pad_w;
  }
}

// ---- kernels

// The transforms of all tiles; with three planes the last holds negated imaginary parts. Zeros for
// tiles from source.count to `padded`.
template <class T>
__global__ void __launch_bounds__(kFftThreads)
    fft_kernel(FftLayout layout, FftSource<const T> source, FftMatrices<Acc<T>> to, unsigned padded,
               unsigned blocks) {
  using A = Acc<T>;
  SIMT_DYNAMIC_SHARED(Complex<A>, shared);
  __shared__ TileOrigins origins;
  const TileFft<A> fft{layout, shared, shared + layout.elements()};
  const int row = static_cast<int>(blockIdx.x / blocks), tiles = 1 << layout.log_tiles;
  const unsigned tile0 = blockIdx.x % blocks << layout.log_tiles;
  const int log_rows = layout.log_rows(), log_width = layout.width.log_size;
  const bool two_rows = layout.height.log_size > 0;
  fft.fill_roots();
  if (!source.filters) find_origins(source, row, tile0, tiles, origins);
  __syncthreads();

  // load, lanes along the width
  for (int i = threadIdx.x; i < tiles << (log_rows + log_width); i += kFftThreads) {
    const int w = i & (layout.width.size() - 1), pair = (i >> log_width) & ((1 << log_rows) - 1);
    const int tile = i >> (log_width + log_rows);
    Complex<A> value{A(0), A(0)};
    if (!source.filters && tile0 + tile < source.count && w < source.size_w) {
      const int x = origins.w[tile] + w, h = two_rows ? 2 * pair : 0, y = origins.h[tile] + h;
      const T* const from = source.data + origins.plane[tile] + int64_t{y} * source.width + x;
      const bool inside = x >= 0 && x < source.width;
      if (inside && h < source.size_h && y >= 0 && y < source.height) value.re = widen(from[0]);
      if (inside && two_rows && h + 1 < source.size_h && y + 1 >= 0 && y + 1 < source.height)
        value.im = widen(from[source.width]);
    }
    shared[tile * layout.tile_pitch() + pair * layout.pitch() + layout.column(w)] = value;
  }
  __syncthreads();
  if (source.filters) {
    for (int i = threadIdx.x; i < source.taps << layout.log_tiles; i += kFftThreads) {
      const int tile = i & (tiles - 1), tap = i >> layout.log_tiles;
      if (tile0 + tile >= source.count) continue;
      int h, w;
      source.tap(tap, h, w);
      const A value = widen(source.data[source.filter(row, tile0 + tile) +
                                        (source.turned ? source.taps - 1 - tap : tap)]);
      Complex<A>& element =
          shared[tile * layout.tile_pitch() + (h >> 1) * layout.pitch() + layout.column(w)];
      if (h & 1)
        element.im = value;
      else
        element.re = value;
    }
    __syncthreads();
  }

  fft.forward();

  // store, lanes along tiles
  const FftFrequencies frequencies{layout.height.size(), layout.width.size()};
  const int group = row / source.rows_per_group, row_in_group = row % source.rows_per_group;
  for (int i = threadIdx.x; i < frequencies.count() << layout.log_tiles; i += kFftThreads) {
    const int tile = i & (tiles - 1), f = i >> layout.log_tiles;
    if (tile0 + tile >= padded) continue;
    const int ky = frequencies.row(f), kx = frequencies.column(f);
    const Complex<A>* const mine = shared + tile * layout.tile_pitch();
    Complex<A> value;
    if (two_rows && f < frequencies.edge()) {  // tell columns 0 and width / 2 apart
      const Complex<A> a = mine[layout.frequency(ky, 0)];
      const Complex<A> b = mine[layout.frequency(-ky & (layout.height.size() - 1), 0)];
      if (kx == 0)
        value = {A(0.5) * (a.re + b.re), A(0.5) * (a.im - b.im)};
      else
        value = {A(0.5) * (a.im + b.im), A(0.5) * (b.re - a.re)};
    } else {
      value = mine[layout.frequency(ky, kx)];
    }
    A* const place = to.at(f, group, row_in_group) + tile0 + tile;
    place[0] = value.re, place[to.plane] = value.im;
    if (to.planes == 3) place[2 * to.plane] = -value.im;
  }
}

// The inverse transforms of all tiles, of the sum of `splits` matrices that lie split_stride apart;
// tiles get the bias of their channel added, and the epilogue.
template <class T>
__global__ void __launch_bounds__(kFftThreads)
    inverse_fft_kernel(FftLayout layout, FftMatrices<const Acc<T>> from, int splits,
                       int64_t split_stride, FftSource<T> target, const T* __restrict__ bias,
                       const __grid_constant__ Finish<T> finish, unsigned blocks) {
  using A = Acc<T>;
  SIMT_DYNAMIC_SHARED(Complex<A>, shared);
  __shared__ TileOrigins origins;
  const TileFft<A> fft{layout, shared, shared + layout.elements()};
  const int row = static_cast<int>(blockIdx.x / blocks), tiles = 1 << layout.log_tiles;
  const unsigned tile0 = blockIdx.x % blocks << layout.log_tiles;
  const int log_rows = layout.log_rows(), log_width = layout.width.log_size;
  const bool two_rows = layout.height.log_size > 0;
  fft.fill_roots();
  if (!target.filters) find_origins(target, row, tile0, tiles, origins);

  // load, lanes along tiles
  const FftFrequencies frequencies{layout.height.size(), layout.width.size()};
  const int group = row / target.rows_per_group, row_in_group = row % target.rows_per_group;
  const auto value_at = [&](int f, int tile) {
    Complex<A> value{A(0), A(0)};
    if (tile0 + tile < target.count) {
      const A* place = from.at(f, group, row_in_group) + tile0 + tile;
      for (int split = 0; split < splits; ++split, place += split_stride)
        value.re += place[0], value.im += place[from.plane];
    }
    return value;
  };
  for (int i = threadIdx.x; i < frequencies.count() << layout.log_tiles; i += kFftThreads) {
    const int tile = i & (tiles - 1), f = i >> layout.log_tiles;
    const int ky = frequencies.row(f), kx = frequencies.column(f);
    Complex<A>* const mine = shared + tile * layout.tile_pitch();
    const Complex<A> a = value_at(f, tile);
    if (two_rows && f < frequencies.edge()) {  // columns 0 and width / 2 as parts of one
      if (kx) continue;
      const Complex<A> b = value_at(f + 1, tile);
      const int mirrored = -ky & (layout.height.size() - 1);
      mine[layout.frequency(ky, 0)] = {a.re - b.im, a.im + b.re};
      if (mirrored != ky) mine[layout.frequency(mirrored, 0)] = {a.re + b.im, b.re - a.im};
    } else {
      mine[layout.frequency(ky, kx)] = a;
      if (!two_rows && kx && kx < layout.width.size() / 2)
        mine[layout.frequency(0, layout.width.size() - kx)] = conj(a);
    }
  }
  __syncthreads();

  fft.inverse();

  const A scale = A(1) / A(layout.height.size() * layout.width.size());
  if (target.filters) {
    for (int i = threadIdx.x; i < target.taps << layout.log_tiles; i += kFftThreads) {
      const int tap = i % target.taps, tile = i / target.taps;
      if (tile0 + tile >= target.count) continue;
      int h, w;
      target.tap(tap, h, w);
      const Complex<A> element =
          shared[tile * layout.tile_pitch() + (h >> 1) * layout.pitch() + layout.column(w)];
      target.data[target.filter(row, tile0 + tile) + tap] =
          narrow<T>((h & 1 ? element.im : element.re) * scale);
    }
    return;
  }
  // store, lanes along the width
  const A shift = bias ? widen(bias[row]) : A(0);
  for (int i = threadIdx.x; i < tiles << (log_rows + log_width); i += kFftThreads) {
    const int w = i & (layout.width.size() - 1), pair = (i >> log_width) & ((1 << log_rows) - 1);
    const int tile = i >> (log_width + log_rows);
    if (tile0 + tile >= target.count || w >= target.size_w) continue;
    const int x = origins.w[tile] + w, h = two_rows ? 2 * pair : 0, y = origins.h[tile] + h;
    if (x >= target.width) continue;
    const Complex<A> element =
        shared[tile * layout.tile_pitch() + pair * layout.pitch() + layout.column(w)];
    const int64_t at = origins.plane[tile] + int64_t{y} * target.width + x;
    const int64_t below = at + target.width;
    if (h < target.size_h && y < target.height)
      target.data[at] = finish(element.re * scale + shift, at);
    if (two_rows && h + 1 < target.size_h && y + 1 < target.height)
      target.data[below] = finish(element.im * scale + shift, below);
  }
}

// ---- the passes

static int log2_of(int64_t side) {
  int log = 0;
  while (int64_t{1} << log < side) ++log;
  return log;
}

// As many tiles a thread block as make whole sectors of a frequency, while shared memory holds
// blocks enough.
static FftLayout layout_for(const FftTiles& tiles, int64_t count, size_t element_bytes) {
  constexpr size_t kComfortable = 40 << 10, kMost = 80 << 10;
  FftLayout layout{FftSide(log2_of(tiles.side[0])), FftSide(log2_of(tiles.side[1])), 5};
  const auto bytes = [&] { return static_cast<size_t>(layout.elements()) * 2 * element_bytes; };
  while (layout.log_tiles > 3 && bytes() > kComfortable) --layout.log_tiles;
  while (layout.log_tiles > 0 && bytes() > kMost) --layout.log_tiles;
  while (layout.log_tiles > 2 && int64_t{1} << (layout.log_tiles - 1) >= count) --layout.log_tiles;
  return layout;
}

// Tiles of planes [n][channels][extent], `size` elements of each.
template <class P>
static FftSource<P> tile_source(P* data, const FftBlocks& blocks, int64_t begin, int64_t channels,
                                int64_t groups, const int64_t* extent, const int64_t* pad,
                                const int64_t* size) {
  FftSource<P> source{};
  source.data = data;
  source.count = static_cast<unsigned>(min(blocks.block, blocks.all - begin));
  source.rows = static_cast<int>(channels);
  source.rows_per_group = static_cast<int>(channels / groups);
  source.first_image = begin / blocks.image;
  source.first_tile = static_cast<unsigned>(begin % blocks.image);
  source.tiles_w = static_cast<unsigned>(blocks.tiles.count[1]);
  source.tiles_image = static_cast<unsigned>(blocks.image);
  source.height = static_cast<int>(extent[1]), source.width = static_cast<int>(extent[2]);
  source.pad_h = pad ? static_cast<int>(pad[1]) : 0;
  source.pad_w = pad ? static_cast<int>(pad[2]) : 0;
  source.step_h = static_cast<int>(blocks.tiles.out[0]);
  source.step_w = static_cast<int>(blocks.tiles.out[1]);
  source.size_h = static_cast<int>(size[0]), source.size_w = static_cast<int>(size[1]);
  return source;
}

// The filters [group][..], `rows` matrix rows a group, `lanes` tiles a row.
template <class P>
static FftSource<P> filter_source(P* data, const ConvShape& s, int64_t rows, int64_t lanes,
                                  int64_t row_step, int64_t lane_step) {
  FftSource<P> source{};
  source.data = data, source.filters = true;
  source.count = static_cast<unsigned>(lanes);
  source.rows = static_cast<int>(rows * s.groups), source.rows_per_group = static_cast<int>(rows);
  source.row_step = row_step * s.kernel_size(), source.lane_step = lane_step * s.kernel_size();
  source.group_step = rows * lanes * s.kernel_size();
  source.taps = static_cast<int>(s.kernel_size()), source.taps_w = static_cast<int>(s.kernel[2]);
  source.spread_h = static_cast<int>(s.dilation[1]);
  source.spread_w = static_cast<int>(s.dilation[2]);
  return source;
}

template <class T>
static void transform(const FftTiles& tiles, const FftSource<const T>& source,
                      const FftMatrices<Acc<T>>& to, int64_t padded) {
  const FftLayout layout = layout_for(tiles, padded, sizeof(Acc<T>));
  const int64_t blocks = ceil_div(padded, int64_t{1} << layout.log_tiles);
  launch(fft_kernel<T>, grid_size(blocks * source.rows), kFftThreads,
         (layout.elements() + kRoots) * sizeof(Complex<Acc<T>>), layout, source, to,
         static_cast<unsigned>(padded), static_cast<unsigned>(blocks));
}

template <class T>
static void inverse(const FftTiles& tiles, const FftMatrices<const Acc<T>>& from, int64_t splits,
                    int64_t split_stride, const FftSource<T>& target, const T* bias,
                    const ops::Epilogue<T>& epilogue) {
  const FftLayout layout = layout_for(tiles, target.count, sizeof(Acc<T>));
  const int64_t blocks = ceil_div(target.count, int64_t{1} << layout.log_tiles);
  launch(inverse_fft_kernel<T>, grid_size(blocks * target.rows), kFftThreads,
         (layout.elements() + kRoots) * sizeof(Complex<Acc<T>>), layout, from,
         static_cast<int>(splits), split_stride, target, bias, Finish<T>(epilogue),
         static_cast<unsigned>(blocks));
}

template <class A>
static BatchedProduct<A> product_of(const FftMatrices<A>& a, const FftMatrices<A>& b,
                                    const FftMatrices<A>& c, int64_t frequencies) {
  BatchedProduct<A> product;
  product.batch = static_cast<int>(frequencies * a.groups), product.parts = 2;
  product.a = a.data, product.plane_a = a.plane, product.stride_a = a.planes * a.plane;
  product.b = b.data, product.plane_b = b.plane, product.stride_b = b.planes * b.plane;
  product.c = c.data, product.plane_c = c.plane, product.stride_c = c.planes * c.plane;
  product.pitch_a = static_cast<int>(a.pitch), product.pitch_b = static_cast<int>(b.pitch);
  product.pitch_c = static_cast<int>(c.pitch);
  return product;
}

template <class A>
static FftMatrices<const A> readable(const FftMatrices<A>& m) {
  return {m.data, m.plane, m.pitch, m.groups, m.planes};
}

template <class T>
static void convolve(const ConvShape& s, const T* x, const FftSource<const T>& filters,
                     const ConvArgs<T>& args) {
  using A = Acc<T>;
  const FftBlocks blocks(s);
  const int groups = static_cast<int>(s.groups);
  const int64_t matrices = blocks.frequencies * groups;
  const FftMatrices<A> u{reinterpret_cast<A*>(args.workspace), blocks.filter_plane,
                         blocks.filter_pitch, groups, 3};
  const FftMatrices<A> v{u.data + 3 * matrices * u.plane, blocks.input_plane, blocks.pitch, groups,
                         2};
  const FftMatrices<A> m{v.data + 2 * matrices * v.plane, blocks.output_plane, blocks.pitch, groups,
                         2};
  transform<T>(blocks.tiles, filters, u, blocks.filter_pitch);
  for (int64_t begin = 0; begin < blocks.all; begin += blocks.block) {
    const auto inputs =
        tile_source(x, blocks, begin, s.c, s.groups, s.in, s.pad, blocks.tiles.side);
    transform<T>(blocks.tiles, inputs, v, winograd::round_up(inputs.count, 8));
    BatchedProduct<A> product = product_of(u, v, m, blocks.frequencies);
    product.m = static_cast<int>(s.k_per_group()),
    product.depth = static_cast<int>(s.c_per_group());
    product.n = static_cast<int>(inputs.count);
    run_batched_product<false>(product);
    inverse<T>(
        blocks.tiles, readable(m), 1, 0,
        tile_source(args.result, blocks, begin, s.k, s.groups, s.out, nullptr, blocks.tiles.out),
        args.bias, args.epilogue);
  }
}

template <class T>
void conv_fprop_fft(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const auto filters =
      filter_source(args.weight, s, s.c_per_group(), s.k_per_group(), 1, s.c_per_group());
  convolve(s, args.x, filters, args);
}

template <class T>
void conv_dgrad_fft(const ConvArgs<T>& args) {
  const ConvShape s = conv_phase(args.shape, 0).shape;
  auto filters =
      filter_source(args.weight, s, s.c_per_group(), s.k_per_group(), s.k_per_group(), 1);
  filters.turned = true;
  convolve(s, args.grad_y, filters, args);
}

template <class T>
void conv_wgrad_fft(const ConvArgs<T>& args) {
  using A = Acc<T>;
  const ConvShape& s = args.shape;
  const FftBlocks blocks(s);
  const int groups = static_cast<int>(s.groups);
  const int64_t matrices = blocks.frequencies * groups;
  const FftMatrices<A> du{static_cast<A*>(static_cast<void*>(args.workspace)),
                          blocks.gradient_plane, blocks.gradient_pitch, groups, 2};
  const int64_t split_stride = 2 * matrices * du.plane;
  const FftMatrices<A> v{du.data + blocks.splits * split_stride, blocks.input_plane, blocks.pitch,
                         groups, 2};
  const FftMatrices<A> m{v.data + 2 * matrices * v.plane, blocks.output_plane, blocks.pitch, groups,
                         3};
  int64_t begin = 0;
  do {  // also without tiles: the product then writes zeros
    const auto inputs =
        tile_source(args.x, blocks, begin, s.c, s.groups, s.in, s.pad, blocks.tiles.side);
    const auto outputs =
        tile_source(args.grad_y, blocks, begin, s.k, s.groups, s.out, nullptr, blocks.tiles.out);
    transform<T>(blocks.tiles, inputs, v, winograd::round_up(inputs.count, 8));
    transform<T>(blocks.tiles, outputs, m, winograd::round_up(inputs.count, 8));
    BatchedProduct<A> product = product_of(m, v, du, blocks.frequencies);
    product.m = static_cast<int>(s.k_per_group()), product.n = static_cast<int>(s.c_per_group());
    product.depth = static_cast<int>(inputs.count);
    product.splits = static_cast<int>(blocks.splits);
    product.split_depth = static_cast<int>(blocks.split_tiles);
    product.split_stride = split_stride, product.accumulate = begin > 0;
    run_batched_product<true>(product);
    begin += blocks.block;
  } while (begin < blocks.all);
  inverse<T>(blocks.tiles, readable(du), blocks.splits, split_stride,
             filter_source(args.result, s, s.k_per_group(), s.c_per_group(), s.c_per_group(), 1),
             static_cast<const T*>(nullptr), ops::Epilogue<T>());
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_fft, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_fft, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_fft, ConvArgs)

}  // namespace lamina::cuda
