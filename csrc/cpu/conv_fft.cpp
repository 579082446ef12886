// conv, fft: products of Fourier transforms of overlapping tiles. Stride 1, one or two axes.
//
//   fprop  Y[f][k][t] = sum over c of conj(W[f][k][c]) X[f][c][t] for the frequencies f of tile t
//   dgrad  fprop of grad_y with the filters turned by 180 degrees and k, c swapped
//   wgrad  DW[f][k][c] = sum over t of conj(DY[f][k][t]) X[f][c][t]
//
// Source        Mathieu et al. 2014; Vasilache et al. 2015. Tiles: overlap-save.
// Complex       products run as real ones: [a_re -a_im; a_im a_re] times [b_re; b_im].
// Workspace     transforms of the filters and of one block of tiles (shared/fft_tiles.h).
// Partitioning  transforms by channel, products by blocks (cpu/gemm.h); blocks of tiles in order.
// Numerics      the error follows the largest products of a tile, eps log2(side^2) |x| |w|, not
//               each output; Inf or NaN reaches every output of the tiles it lies in.
#include "cpu/fft.h"
#include "cpu/filters.h"
#include "cpu/gemm.h"
#include "ops/instantiate.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

// The buffers of one task: a tile and its transform, a vector lane each of kLanes tiles.
template <class T>
struct TileBuffers {
  FftTiles tiles;
  TileFft<T> fft;
  Scratch<T> memory;

  explicit TileBuffers(const FftTiles& t)
      : tiles(t),
        fft(t.side[0], t.side[1]),
        memory((t.side[0] * t.side[1] + 2 * t.frequencies()) * kLanes<T>) {}

  Vec<T>* tile() { return reinterpret_cast<Vec<T>*>(memory.get()); }
  T* lanes() { return memory.get(); }
  Vec<T>* re() { return tile() + tiles.side[0] * tiles.side[1]; }
  Vec<T>* im() { return re() + tiles.frequencies(); }
  void clear() {
    for (int64_t i = 0; i < tiles.side[0] * tiles.side[1]; ++i) tile()[i] = Vec<T>{};
  }
};

// The part of a plane that a tile covers: rows and columns [low, high) of the tile are inside.
struct TileWindow {
  int64_t n, origin[2], low[2], high[2];

  // step: from tile to tile; size: elements of the tile that are read; pad as in the convolution.
  TileWindow(const FftTiles& tiles, int64_t t, const int64_t* extent, const int64_t* pad,
             const int64_t* size) {
    n = t / (tiles.count[0] * tiles.count[1]);
    const int64_t index[2] = {t / tiles.count[1] % tiles.count[0], t % tiles.count[1]};
    for (int axis = 0; axis < 2; ++axis) {
      origin[axis] = index[axis] * tiles.out[axis] - pad[axis];
      low[axis] = min_of(max_of<int64_t>(-origin[axis], 0), size[axis]);
      high[axis] = max_of(low[axis], min_of(size[axis], extent[axis] - origin[axis]));
    }
  }
};

// v[f][group][re, im][channel of the group][tile of the block] from planes x [n][channels][extent].
template <class T>
static void transform_tiles(const FftTiles& tiles, int64_t channels, int64_t groups, int64_t begin,
                            int64_t end, const T* x, const int64_t* extent, const int64_t* pad,
                            const int64_t* size, bool conjugate, T* v) {
  const int64_t per_group = channels / groups;
  parallel_for(channels, [&](int64_t c) {
    TileBuffers<T> buffers(tiles);
    for (int64_t t = begin; t < end; t += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, end - t);
      buffers.clear();
      for (int64_t lane = 0; lane < count; ++lane) {
        const TileWindow window(tiles, t + lane, extent, pad, size);
        for (int64_t h = window.low[0]; h < window.high[0]; ++h) {
          const T* row =
              x + ((window.n * channels + c) * extent[0] + window.origin[0] + h) * extent[1] +
              window.origin[1];
          T* place = buffers.lanes() + h * tiles.side[1] * kLanes<T> + lane;
          for (int64_t w = window.low[1]; w < window.high[1]; ++w) place[w * kLanes<T>] = row[w];
        }
      }
      buffers.fft.forward(buffers.tile(), buffers.re(), buffers.im());
      T* place = v + (c / per_group * 2 * per_group + c % per_group) * tiles.pitch + t - begin;
      for (int64_t f = 0; f < tiles.frequencies(); ++f, place += 2 * channels * tiles.pitch) {
        const Vec<T> im = conjugate ? -buffers.im()[f] : buffers.im()[f];
        store_first(place, count, buffers.re()[f]);
        store_first(place + per_group * tiles.pitch, count, im);
      }
    }
  });
}

// u[f][re, im][k][c] = conj of the filters' transforms.
template <class T>
static void transform_filters(const ConvShape& s, const FftTiles& tiles, const Filters<T>& filters,
                              T* u) {
  const int64_t channels = s.c_per_group(), taps = s.kernel_size(), matrix = s.k * channels;
  parallel_for(s.k, [&](int64_t k) {
    TileBuffers<T> buffers(tiles);
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, channels - c);
      buffers.clear();
      for (int64_t lane = 0; lane < count; ++lane) {
        const T* g = filters.at(s, k, c + lane);
        for (int64_t r = 0; r < taps; ++r) {
          const int64_t h = r / s.kernel[2] * s.dilation[1], w = r % s.kernel[2] * s.dilation[2];
          buffers.lanes()[(h * tiles.side[1] + w) * kLanes<T> + lane] =
              g[filters.turned ? taps - 1 - r : r];
        }
      }
      buffers.fft.forward(buffers.tile(), buffers.re(), buffers.im());
      T* place = u + k * channels + c;
      for (int64_t f = 0; f < tiles.frequencies(); ++f, place += 2 * matrix) {
        store_first(place, count, buffers.re()[f]);
        store_first<T>(place + matrix, count, -buffers.im()[f]);
      }
    }
  });
}

// y[n][k][out] = inverse transforms of m[f][group][re, im][k of the group][tile] + bias.
template <class T>
static void inverse_tiles(const ConvShape& s, const FftTiles& tiles, int64_t begin, int64_t end,
                          const T* m, const T* bias, T* y) {
  const int64_t per_group = s.k_per_group();
  const int64_t none[2] = {0, 0};
  const T scale = T(1) / static_cast<T>(tiles.side[0] * tiles.side[1]);
  parallel_for(s.k, [&](int64_t k) {
    TileBuffers<T> buffers(tiles);
    const T shift = bias ? bias[k] : T(0);
    for (int64_t t = begin; t < end; t += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, end - t);
      const T* place =
          m + (k / per_group * 2 * per_group + k % per_group) * tiles.pitch + t - begin;
      for (int64_t f = 0; f < tiles.frequencies(); ++f, place += 2 * s.k * tiles.pitch) {
        buffers.re()[f] = load_first(place, count);
        buffers.im()[f] = load_first(place + per_group * tiles.pitch, count);
      }
      buffers.fft.inverse(buffers.re(), buffers.im(), buffers.tile());
      for (int64_t lane = 0; lane < count; ++lane) {
        const TileWindow window(tiles, t + lane, s.out + 1, none, tiles.out);
        for (int64_t h = 0; h < window.high[0]; ++h) {
          T* row = y + ((window.n * s.k + k) * s.out[1] + window.origin[0] + h) * s.out[2] +
                   window.origin[1];
          const T* source = buffers.lanes() + h * tiles.side[1] * kLanes<T> + lane;
          for (int64_t w = 0; w < window.high[1]; ++w)
            row[w] = source[w * kLanes<T>] * scale + shift;
        }
      }
    }
  });
}

// Packs complex a as the real [a_re -a_im; a_im a_re]: element (line i, depth p) of the real
// matrix. re and im are [m][depth] at the pitch.
template <class T>
static void pack_complex(const T* re, const T* im, int64_t pitch, int64_t m, int64_t k, int64_t i,
                         int64_t rows, int64_t p, int64_t depth, int64_t width, T* panel) {
  for (int64_t line = 0; line < width; ++line) {
    const int64_t row = i + line;
    for (int64_t q = 0; q < depth; ++q) {
      const bool lower = row >= m, right = p + q >= k;
      const int64_t at = (row - (lower ? m : 0)) * pitch + p + q - (right ? k : 0);
      panel[q * width + line] = line >= rows     ? T(0)
                                : lower == right ? re[at]
                                : lower          ? im[at]
                                                 : -im[at];
    }
  }
}

template <class T>
static void store_block(T* c, int64_t pitch, int64_t rows, int64_t cols, const T* sums,
                        int64_t step, bool first) {
  for (int64_t r = 0; r < rows; ++r, c += pitch, sums += step)
    for (int64_t j = 0; j < cols; ++j) c[j] = (first ? T(0) : c[j]) + sums[j];
}

template <class T>
static void convolve(const ConvShape& s, const T* x, const Filters<T>& filters, const T* bias, T* y,
                     T* workspace) {
  using Tile = GemmTile<T>;
  const FftTiles tiles(s);
  const int64_t frequencies = tiles.frequencies(), matrix = s.k * s.c_per_group();
  T* u = workspace;
  T* v = u + 2 * frequencies * matrix;
  T* m = v + 2 * frequencies * s.c * tiles.pitch;
  transform_filters(s, tiles, filters, u);
  const int64_t rows_a = s.k_per_group(), depth_a = s.c_per_group();
  for (int64_t begin = 0; begin < tiles.all(s); begin += tiles.block) {
    const int64_t end = min_of(begin + tiles.block, tiles.all(s));
    transform_tiles(tiles, s.c, s.groups, begin, end, x, s.in + 1, s.pad + 1, tiles.side, false, v);
    const auto rows_of = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth,
                             T* panel) {
      const T* re = u + index / s.groups * 2 * matrix + index % s.groups * rows_a * depth_a;
      pack_complex(re, re + matrix, depth_a, rows_a, depth_a, i, rows, p, depth, Tile::kRows,
                   panel);
      return panel;
    };
    const auto columns_of = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth,
                                T* panels) {
      const T* b = v + (index * 2 * depth_a + p) * tiles.pitch + j;
      pack_columns(b, 1, tiles.pitch, cols, depth, panels);
      return panels;
    };
    const auto store = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols,
                           const T* sums, int64_t step) {
      store_block(m + (index * 2 * rows_a + i) * tiles.pitch + j, tiles.pitch, rows, cols, sums,
                  step, true);
    };
    gemm_blocks<T>(frequencies * s.groups, 2 * rows_a, end - begin, 2 * depth_a, rows_of,
                   columns_of, store);
    inverse_tiles(s, tiles, begin, end, m, bias, y);
  }
}

template <class T>
void conv_fprop_fft(const ConvArgs<T>& args) {
  convolve(args.shape, args.x, forward_filters(args), args.bias, args.result, args.workspace);
}

template <class T>
void conv_dgrad_fft(const ConvArgs<T>& args) {
  convolve(conv_phase(args.shape, 0).shape, args.grad_y, backward_filters(args), args.bias,
           args.result, args.workspace);
}

// grad_weight[k][c] = inverse transforms of du[f][group][re, im][k of the group][c].
template <class T>
static void inverse_filters(const ConvShape& s, const FftTiles& tiles, const T* du,
                            T* grad_weight) {
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  const T scale = T(1) / static_cast<T>(tiles.side[0] * tiles.side[1]);
  parallel_for(s.k, [&](int64_t k) {
    TileBuffers<T> buffers(tiles);
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
      const int64_t count = min_of<int64_t>(kLanes<T>, channels - c);
      const T* place = du + (k / lanes * 2 * lanes + k % lanes) * channels + c;
      for (int64_t f = 0; f < tiles.frequencies(); ++f, place += 2 * s.k * channels) {
        buffers.re()[f] = load_first(place, count);
        buffers.im()[f] = load_first(place + lanes * channels, count);
      }
      buffers.fft.inverse(buffers.re(), buffers.im(), buffers.tile());
      for (int64_t lane = 0; lane < count; ++lane)
        for (int64_t r = 0; r < taps; ++r) {
          const int64_t h = r / s.kernel[2] * s.dilation[1], w = r % s.kernel[2] * s.dilation[2];
          grad_weight[(k * channels + c + lane) * taps + r] =
              buffers.lanes()[(h * tiles.side[1] + w) * kLanes<T> + lane] * scale;
        }
    }
  });
}

template <class T>
void conv_wgrad_fft(const ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  const ConvShape& s = args.shape;
  const FftTiles tiles(s);
  const int64_t frequencies = tiles.frequencies(), channels = s.c_per_group();
  const int64_t lanes = s.k_per_group();
  const int64_t none[2] = {0, 0};
  T* du = args.workspace;
  T* v = du + 2 * frequencies * s.k * channels;
  T* m = v + 2 * frequencies * s.c * tiles.pitch;
  for (int64_t i = 0; s.n == 0 && i < 2 * frequencies * s.k * channels; ++i) du[i] = 0;
  for (int64_t begin = 0; begin < tiles.all(s); begin += tiles.block) {
    const int64_t end = min_of(begin + tiles.block, tiles.all(s)), count = end - begin;
    transform_tiles(tiles, s.c, s.groups, begin, end, args.x, s.in + 1, s.pad + 1, tiles.side,
                    false, v);
    transform_tiles(tiles, s.k, s.groups, begin, end, args.grad_y, s.out + 1, none, tiles.out, true,
                    m);
    const auto rows_of = [&](int64_t index, int64_t i, int64_t rows, int64_t p, int64_t depth,
                             T* panel) {
      const T* re = m + index * 2 * lanes * tiles.pitch;
      pack_complex(re, re + lanes * tiles.pitch, tiles.pitch, lanes, count, i, rows, p, depth,
                   Tile::kRows, panel);
      return panel;
    };
    const auto columns_of = [&](int64_t index, int64_t j, int64_t cols, int64_t p, int64_t depth,
                                T* panels) {
      for (int64_t first = 0; first < cols; first += Tile::kCols) {
        const int64_t some = min_of<int64_t>(Tile::kCols, cols - first);
        const int64_t width = whole_vectors<T>(some);
        for (int64_t q = 0; q < depth;) {  // [b_re; b_im], tiles first
          const int64_t part = (p + q) / count, tile = (p + q) % count;
          const int64_t run = min_of(depth - q, count - tile);
          const T* b = v + ((index * 2 + part) * channels + j + first) * tiles.pitch + tile;
          pack_columns(b, tiles.pitch, 1, some, run, panels + first * depth + q * width);
          q += run;
        }
      }
      return panels;
    };
    const auto store = [&](int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols,
                           const T* sums, int64_t step) {
      store_block(du + (index * 2 * lanes + i) * channels + j, channels, rows, cols, sums, step,
                  begin == 0);
    };
    gemm_blocks<T>(frequencies * s.groups, 2 * lanes, channels, 2 * count, rows_of, columns_of,
                   store);
  }
  inverse_filters(s, tiles, du, args.result);
}

LAMINA_INSTANTIATE(conv_fprop_fft, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_fft, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_fft, ConvArgs)

LAMINA_CPU_NAMESPACE_END
