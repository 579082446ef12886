// conv, winograd: F(2x2, 3x3), 16 products for 36. Stride 1, dilation 1, 3x3 filters.
//
//   fprop  M[e][k][t] = sum over c of U[e][k][c] V[e][c][t] for the 16 elements e of a tile t,
//          U = G g G^T, V = B^T d B, y = A^T M A
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//   wgrad  dU[e][k][c] = sum over t of (A dy A^T)[e][k][t] V[e][c][t], grad_weight = G^T dU G
//
// Source        Lavin & Gray 2016.
// Workspace     U and one block of V and M: 16 (K C / groups + (C + K) tiles of a block).
// Partitioning  transforms by channel, products by blocks (cpu/gemm.h); blocks of tiles in order.
// Numerics      adds before it multiplies: about twice the rounding of the direct sum, and Inf or
// NaN
//               reaches every output of the tiles it lies in. Exact on small integers.
#include "cpu/filters.h"
#include "cpu/gemm.h"
#include "cpu/phase_plane.h"
#include "ops/instantiate.h"
#include "shared/winograd.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;
using ops::GemmArgs;
using winograd::Blocks;
using winograd::kOut;
using winograd::kTile;

inline constexpr int64_t kElements = kTile * kTile;

// u[e][output][input] for all groups' output channels.
template <class T>
static void transform_filters(const ConvShape& s, const Filters<T>& filters, T* u) {
  const int64_t channels = s.c_per_group(), matrix = s.k * channels;
  parallel_for(s.k, [&](int64_t k) {
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, channels - c);
      T taps[3][3][kLanes<T>] = {};
      for (int64_t i = 0; i < count; ++i) {
        const T* g = filters.at(s, k, c + i);
        for (int64_t r = 0; r < 9; ++r) taps[r / 3][r % 3][i] = g[filters.turned ? 8 - r : r];
      }
      Vec<T> g[3][3], tile[kTile][kTile];
      for (int r = 0; r < 9; ++r) g[r / 3][r % 3] = load(taps[r / 3][r % 3]);
      winograd::both_axes<3, kTile>(g, tile, [](const Vec<T>(&in)[3], Vec<T>(&out)[kTile]) {
        winograd::filter_line(in, out, T(0.5));
      });
      for (int e = 0; e < kElements; ++e)
        store_first(u + e * matrix + k * channels + c, count, tile[e / kTile][e % kTile]);
    }
  });
}

// The convolution shape whose taps are the Side x Side elements of the tiles at stride 2.
LAMINA_INLINE ConvShape tile_shape(const ConvShape& s, const Blocks& blocks, int64_t side) {
  ConvShape tiles = s;
  tiles.kernel[1] = tiles.kernel[2] = side;
  tiles.stride[1] = tiles.stride[2] = kOut;
  tiles.out[1] = blocks.tiles_h, tiles.out[2] = blocks.tiles_w;
  return tiles;
}

// Calls body(image, first tile row in it, rows, first tile of the block) for the images of a block.
template <class Body>
LAMINA_INLINE void for_each_image(const ConvShape& s, const Blocks& blocks, int64_t row,
                                  const Body& body) {
  const int64_t end = min_of(row + blocks.rows, blocks.all_rows(s));
  for (int64_t at = row; at < end;) {
    const int64_t first = at % blocks.tiles_h, rows = min_of(blocks.tiles_h - first, end - at);
    body(at / blocks.tiles_h, first, rows, (at - row) * blocks.tiles_w);
    at += rows;
  }
}

// v[e][channel][tile of the block] from planes x [n][channels][in], Side x Side elements a tile.
template <int Side, class T, class Line>
static void transform_tiles(const ConvShape& s, const Blocks& blocks, int64_t channels, int64_t row,
                            const T* x, T* v, const Line& line) {
  const ConvShape shape = tile_shape(s, blocks, Side);
  const PhasePlane largest(shape, min_of(blocks.rows, blocks.tiles_h));
  parallel_for(channels, [&](int64_t c) {
    Scratch<T> copy(largest.size + largest.slack + kLanes<T>);
    for_each_image(s, blocks, row, [&](int64_t n, int64_t first, int64_t rows, int64_t tile) {
      const PhasePlane plane(shape, rows);
      for (int64_t j = 0; j < plane.slack + kLanes<T>; ++j) copy[plane.size + j] = 0;
      fill_phase_plane(shape, plane, x + (n * channels + c) * s.in_size(), 0, first, copy.get());
      for (int64_t h = 0; h < rows; ++h)
        for (int64_t w = 0; w < blocks.tiles_w; w += kLanes<T>) {
          Vec<T> d[Side][Side], out[kTile][kTile];
          for (int r = 0; r < Side * Side; ++r)
            d[r / Side][r % Side] =
                load(&copy[plane.offset(shape, 0, r / Side, r % Side) + h * plane.pitch + w]);
          winograd::both_axes<Side, kTile>(d, out, line);
          T* place = v + c * blocks.pitch + tile + h * blocks.tiles_w + w;
          const int64_t count = blocks.tiles_w - w;
          for (int e = 0; e < kElements; ++e, place += channels * blocks.pitch)
            if (count >= kLanes<T>)
              store(place, out[e / kTile][e % kTile]);
            else
              store_first(place, count, out[e / kTile][e % kTile]);
        }
    });
  });
}

// y[n][k][out] = A^T m A + bias for the tiles of the block.
template <class T>
static void inverse_tiles(const ConvShape& s, const Blocks& blocks, int64_t row, const T* m,
                          const T* bias, T* y) {
  parallel_for(s.k, [&](int64_t k) {
    const T shift = bias ? bias[k] : T(0);
    for_each_image(s, blocks, row, [&](int64_t n, int64_t first, int64_t rows, int64_t tile) {
      for (int64_t h = 0; h < rows; ++h)
        for (int64_t w = 0; w < blocks.tiles_w; w += kLanes<T>) {
          const T* place = m + k * blocks.pitch + tile + h * blocks.tiles_w + w;
          Vec<T> sums[kTile][kTile], out[kOut][kOut];
          for (int e = 0; e < kElements; ++e)  // the last vector reads into the next row or channel
            sums[e / kTile][e % kTile] = load(place + e * s.k * blocks.pitch);
          winograd::both_axes<kTile, kOut>(
              sums, out,
              [](const Vec<T>(&in)[kTile], Vec<T>(&two)[kOut]) { winograd::output_line(in, two); });
          for (int64_t r = 0; r < kOut; ++r) {
            const int64_t p = (first + h) * kOut + r;
            if (p >= s.out[1]) break;
            T pairs[kLanes<T>][kOut], columns[kOut][kLanes<T>];
            for (int j = 0; j < kOut; ++j) store(columns[j], out[r][j]);
            for (int i = 0; i < kLanes<T>; ++i)
              for (int j = 0; j < kOut; ++j) pairs[i][j] = columns[j][i] + shift;
            T* line = y + ((n * s.k + k) * s.out[1] + p) * s.out[2] + w * kOut;
            const int64_t count = min_of<int64_t>(kOut * kLanes<T>, s.out[2] - w * kOut);
            __builtin_memcpy(line, pairs, sizeof(T) * count);
          }
        }
    });
  });
}

template <class T>
static void transform_inputs(const ConvShape& s, const Blocks& blocks, int64_t row, const T* x,
                             T* v) {
  transform_tiles<kTile>(
      s, blocks, s.c, row, x, v,
      [](const Vec<T>(&in)[kTile], Vec<T>(&out)[kTile]) { winograd::input_line(in, out); });
}

template <class T>
static void convolve(const ConvShape& s, const T* x, const Filters<T>& filters, const T* bias, T* y,
                     T* workspace) {
  const Blocks blocks(s);
  T* u = workspace;
  T* v = u + kElements * s.k * s.c_per_group();
  T* m = v + kElements * s.c * blocks.pitch;
  transform_filters(s, filters, u);
  for (int64_t row = 0; row < blocks.all_rows(s); row += blocks.rows) {
    transform_inputs(s, blocks, row, x, v);
    GemmArgs<T> product;
    product.batch = kElements * s.groups;
    product.m = s.k_per_group(), product.k = s.c_per_group();
    product.n = min_of(blocks.rows, blocks.all_rows(s) - row) * blocks.tiles_w;
    product.a = u, product.lda = product.k, product.stride_a = product.m * product.k;
    product.b = v, product.ldb = blocks.pitch, product.stride_b = product.k * blocks.pitch;
    product.c = m, product.ldc = blocks.pitch, product.stride_c = product.m * blocks.pitch;
    gemm(product);
    inverse_tiles(s, blocks, row, m, bias, y);
  }
}

template <class T>
void conv_fprop_winograd(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  convolve(s, args.x, forward_filters(args), args.bias, args.result, args.workspace);
}

template <class T>
void conv_dgrad_winograd(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  convolve(conv_phase(s, 0).shape, args.grad_y, backward_filters(args), args.bias, args.result,
           args.workspace);
}

template <class T>
void conv_wgrad_winograd(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const Blocks blocks(s);
  const int64_t channels = s.c_per_group(), matrix = s.k * channels;
  T* du = args.workspace;
  T* v = du + kElements * matrix;
  T* m = v + kElements * s.c * blocks.pitch;
  for (int64_t i = 0; s.n == 0 && i < kElements * matrix; ++i) du[i] = 0;
  ConvShape gradient = s;  // grad_y as an input of tiles of 2 x 2 without padding
  for (int axis = 0; axis < 3; ++axis) gradient.in[axis] = s.out[axis], gradient.pad[axis] = 0;
  for (int64_t row = 0; row < blocks.all_rows(s); row += blocks.rows) {
    transform_inputs(s, blocks, row, args.x, v);
    transform_tiles<kOut>(gradient, blocks, s.k, row, args.grad_y, m,
                          [](const Vec<T>(&in)[kOut], Vec<T>(&out)[kTile]) {
                            winograd::output_gradient_line(in, out);
                          });
    GemmArgs<T> product;
    product.batch = kElements * s.groups;
    product.m = s.k_per_group(), product.n = channels;
    product.k = min_of(blocks.rows, blocks.all_rows(s) - row) * blocks.tiles_w;
    product.a = m, product.lda = blocks.pitch, product.stride_a = product.m * blocks.pitch;
    product.b = v, product.ldb = blocks.pitch, product.stride_b = channels * blocks.pitch;
    product.trans_b = true;
    product.c = du, product.ldc = channels, product.stride_c = product.m * channels;
    product.beta = row == 0 ? T(0) : T(1);
    gemm(product);
  }
  parallel_for(s.k, [&](int64_t k) {
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, channels - c);
      Vec<T> tile[kTile][kTile], out[3][3];
      for (int e = 0; e < kElements; ++e)
        tile[e / kTile][e % kTile] = load_first(du + e * matrix + k * channels + c, count);
      winograd::both_axes<kTile, 3>(tile, out, [](const Vec<T>(&in)[kTile], Vec<T>(&three)[3]) {
        winograd::filter_gradient_line(in, three, T(0.5));
      });
      for (int r = 0; r < 9; ++r) {
        T lanes[kLanes<T>];
        store(lanes, out[r / 3][r % 3]);
        for (int64_t i = 0; i < count; ++i) args.result[(k * channels + c + i) * 9 + r] = lanes[i];
      }
    }
  });
}

LAMINA_INSTANTIATE(conv_fprop_winograd, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_winograd, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_winograd, ConvArgs)

LAMINA_CPU_NAMESPACE_END
