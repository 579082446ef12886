// What the Winograd kernels share: the transforms of lines by their length, and where tiles lie.
#pragma once

#include "cuda/device/finish.h"
#include "cuda/device/launch.h"
#include "cuda/device/vector.h"
#include "shared/winograd.h"
#include "shared/winograd_tiles.h"

namespace lamina::cuda {

inline constexpr int kWinogradThreads = 256, kWinogradWarps = kWinogradThreads / 32;

// ---- lines of a tile, by its length

struct InputLine {
  template <class In, class Out>
  __host__ __device__ constexpr void operator()(const In& in, Out& out) const {
    winograd::input_line(in, out);
  }
};
struct OutputLine {
  template <class In, class Out>
  __host__ __device__ constexpr void operator()(const In& in, Out& out) const {
    winograd::output_line(in, out);
  }
};
struct OutputGradientLine {
  template <class In, class Out>
  __host__ __device__ constexpr void operator()(const In& in, Out& out) const {
    winograd::output_gradient_line(in, out);
  }
};
struct FilterLine {
  template <class In, class Out>
  __host__ __device__ constexpr void operator()(const In& in, Out& out) const {
    winograd::filter_line(in, out);
  }
};
struct FilterGradientLine {
  template <class In, class Out>
  __host__ __device__ constexpr void operator()(const In& in, Out& out) const {
    winograd::filter_gradient_line(in, out);
  }
};

// ---- where the tiles lie

// The tiles of a block and the planes [n][channels][height][width] they cover.
struct BlockTiles {
  int64_t first_image;
  unsigned first_tile, count;  // first tile of the block within its image; tiles of the block
  unsigned tiles_w, tiles_image;
  int height, width, pad_h, pad_w;
  int channels;
  int64_t pitch;  // of the block's matrices

  BlockTiles(const winograd::Tiles& tiles, int64_t begin, int64_t block, int64_t channels_,
             const int64_t* extent, const int64_t* pad)
      : first_image(begin / tiles.image),
        first_tile(static_cast<unsigned>(begin % tiles.image)),
        count(static_cast<unsigned>(min(block, tiles.all - begin))),
        tiles_w(static_cast<unsigned>(tiles.tiles_w)),
        tiles_image(static_cast<unsigned>(tiles.image)),
        height(static_cast<int>(extent[1])),
        width(static_cast<int>(extent[2])),
        pad_h(pad ? static_cast<int>(pad[1]) : 0),
        pad_w(pad ? static_cast<int>(pad[2]) : 0),
        channels(static_cast<int>(channels_)),
        pitch(tiles.pitch) {}

  // One warp for 32 tiles of a channel; a block's warps take consecutive channels.
  unsigned grid() const {
    return grid_size(ceil_div(count, 32) * ceil_div(channels, kWinogradWarps));
  }
};

// What a thread of such a grid works on.
struct TilePosition {
  unsigned t;  // tile of the block
  int channel;
  int64_t plane;  // offset of its plane
  int h, w;       // of the tile's first position in the plane

  __device__ __forceinline__ TilePosition(const BlockTiles& tiles, int out) {
    const unsigned groups = (tiles.count + 31) / 32;
    t = blockIdx.x % groups * 32 + threadIdx.x % 32;
    channel = static_cast<int>(blockIdx.x / groups * kWinogradWarps + threadIdx.x / 32);
    const unsigned local = tiles.first_tile + t, image = local / tiles.tiles_image;
    const unsigned rest = local % tiles.tiles_image;
    plane = ((tiles.first_image + image) * tiles.channels + channel) *
            (int64_t{tiles.height} * tiles.width);
    h = static_cast<int>(rest / tiles.tiles_w) * out - tiles.pad_h;
    w = static_cast<int>(rest % tiles.tiles_w) * out - tiles.pad_w;
  }
};

// How the rows of tiles are read: element by element, or in aligned pairs, of which the first
// begins at the tile's first column or one before it. A pair lies inside the plane or outside.
enum class RowRead { elements, even_pairs, odd_pairs };

template <class T>
RowRead row_read(const BlockTiles& tiles, const T* x) {
  if (tiles.width % 2 || reinterpret_cast<uintptr_t>(x) % (2 * sizeof(T))) return RowRead::elements;
  return tiles.pad_w % 2 ? RowRead::odd_pairs : RowRead::even_pairs;
}

// Bit i: row or column i of a tile that begins at h, w lies inside the plane.
struct TileInside {
  unsigned rows, columns;

  __device__ __forceinline__ TileInside(const BlockTiles& tiles, int side, int h, int w, bool any)
      : rows(0), columns(0) {
#pragma unroll
    for (int i = 0; i < side; ++i) {
      if (any && h + i >= 0 && h + i < tiles.height) rows |= 1u << i;
      if (w + i >= 0 && w + i < tiles.width) columns |= 1u << i;
    }
  }
  __device__ __forceinline__ bool has(int row, int column) const {
    return (rows >> row & 1) && (columns >> column & 1);
  }
};

// The tile whose first element is (or would be) at `from`; zeros outside the plane.
template <int SIDE, class T>
__device__ __forceinline__ void load_tile(const T* from, int width, const TileInside& inside,
                                          RowRead read, Acc<T> (&tile)[SIDE][SIDE]) {
#pragma unroll
  for (int r = 0; r < SIDE; ++r, from += width) {
    if (read == RowRead::elements) {
#pragma unroll
      for (int s = 0; s < SIDE; ++s) tile[r][s] = inside.has(r, s) ? widen(from[s]) : Acc<T>(0);
    } else if (read == RowRead::even_pairs) {
#pragma unroll
      for (int s = 0; s < SIDE; s += 2) {
        Vector<T, 2> pair{};
        if (inside.has(r, s)) pair = load<T, 2>(from + s);
        tile[r][s] = widen(pair.element[0]), tile[r][s + 1] = widen(pair.element[1]);
      }
    } else {
#pragma unroll
      for (int s = -1; s < SIDE; s += 2) {
        Vector<T, 2> pair{};
        if (inside.has(r, s < 0 ? 0 : s)) pair = load<T, 2>(from + s);
        if (s >= 0) tile[r][s < 0 ? 0 : s] = widen(pair.element[0]);
        if (s + 1 < SIDE) tile[r][s + 1 < SIDE ? s + 1 : 0] = widen(pair.element[1]);
      }
    }
  }
}

// Stores a tile of results, plus `shift`, in the plane of y that begins at `plane`. wide: every row
// of the tile is whole and lies on a multiple of its size, also in the residual.
template <class T, int OUT>
__device__ __forceinline__ void store_tile(const BlockTiles& tiles, int h0, int w0, bool wide,
                                           const Acc<T> (&out)[OUT][OUT], Acc<T> shift, T* y,
                                           int64_t plane, const Finish<T>& finish) {
  constexpr int kPiece = OUT < kWide<T> ? OUT : kWide<T>;
#pragma unroll
  for (int r = 0; r < OUT; ++r) {
    if (h0 + r >= tiles.height) break;
    const int64_t row = plane + ((h0 + r) * tiles.width + w0);
#pragma unroll
    for (int s = 0; s < OUT; s += kPiece) {
      Vector<Acc<T>, kPiece> sums;
#pragma unroll
      for (int i = 0; i < kPiece; ++i) sums.element[i] = out[r][s + i] + shift;
      if (wide) {
        store<T, kPiece>(y + row + s, finish(sums, row + s));
      } else {
#pragma unroll
        for (int i = 0; i < kPiece; ++i)
          if (w0 + s + i < tiles.width) y[row + s + i] = finish(sums.element[i], row + s + i);
      }
    }
  }
}

}  // namespace lamina::cuda
