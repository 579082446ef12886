// The transforms of Winograd's convolution on vectors of tiles, and the packed panels they write
// and read (cpu/gemm.h): tiles are the columns of the products.
#pragma once

#include <type_traits>

#include "cpu/filters.h"
#include "cpu/gemm.h"
#include "shared/winograd.h"
#include "shared/winograd_blocks.h"

LAMINA_CPU_NAMESPACE_BEGIN

// F(Rows x Columns, FilterRows x FilterColumns). Lines along the two axes of a tile may have
// different lengths; of a tile along one axis those along the other one have one element.
template <int Rows, int Columns, int FilterRows = 3, int FilterColumns = FilterRows>
struct WinogradTile {
  static constexpr int kOutRows = Rows, kOutColumns = Columns;
  static constexpr int kFilterRows = FilterRows, kFilterColumns = FilterColumns;
  static constexpr int kTaps = FilterRows * FilterColumns;
  static constexpr bool kOneAxis = FilterRows == 1 || FilterColumns == 1;
  static constexpr int kInRows = Rows + FilterRows - 1, kInColumns = Columns + FilterColumns - 1;
  static constexpr int kElements = kInRows * kInColumns;
};

template <class Tile>
LAMINA_INLINE winograd::PlaneShape plane_shape(const ops::ConvShape& s) {
  return winograd::PlaneShape(s, Tile::kOneAxis ? Tile::kTaps : 0);
}

// run(tile) with the tile for the filter's axis and length.
template <class Run>
static void with_line_tile(const ops::ConvShape& s, const Run& run) {
  const bool down = s.kernel[1] > 1;
  if (winograd::best_part_taps(s) == 3)
    down ? run(WinogradTile<4, 1, 3, 1>{}) : run(WinogradTile<1, 4, 1, 3>{});
  else
    down ? run(WinogradTile<3, 1, 4, 1>{}) : run(WinogradTile<1, 3, 1, 4>{});
}

inline constexpr int64_t kTaskRows = 64;  // output channels at a time: M stays within L2
inline constexpr int64_t kAhead = 4;      // channels by which inputs are prefetched
inline constexpr int64_t kFewTasks = 8;   // fewer are cut further

// ---- columns of a row of pixels as vectors of tiles: Step = output columns of a tile

// The inverse of split_columns().
template <class T, int Step>
LAMINA_INLINE void join_columns(const Vec<T> (&in)[Step], Vec<T> (&out)[Step]) {
  static_assert(Step >= 1 && Step <= 4);
  if constexpr (Step == 1) {
    out[0] = in[0];
  } else if constexpr (Step == 3) {
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      Mask<T> from_two{}, from_all{};
      for (int i = 0; i < kLanes<T>; ++i) {
        const int at = j * kLanes<T> + i, tile = at / 3, column = at % 3;
        from_two[i] = column < 2 ? column * kLanes<T> + tile : 0;
        from_all[i] = column < 2 ? i : kLanes<T> + tile;
      }
      out[j] = __builtin_shuffle(__builtin_shuffle(in[0], in[1], from_two), in[2], from_all);
    }
  } else if constexpr (Step == 2) {
    out[0] = interleave<T, false>(in[0], in[1]), out[1] = interleave<T, true>(in[0], in[1]);
  } else {
    const Vec<T> even[2] = {interleave<T, false>(in[0], in[2]), interleave<T, true>(in[0], in[2])};
    const Vec<T> odd[2] = {interleave<T, false>(in[1], in[3]), interleave<T, true>(in[1], in[3])};
    for (int half = 0; half < 2; ++half) {
      out[2 * half] = interleave<T, false>(even[half], odd[half]);
      out[2 * half + 1] = interleave<T, true>(even[half], odd[half]);
    }
  }
}

// ---- where the tiles of a group lie

// Tiles [first, first + count) of a group: neighbours in one tile row of a phase.
struct TileRun {
  int64_t image, o0, o1, o2;  // first output
  int64_t first, count;

  LAMINA_INLINE bool same_rows(const TileRun& other) const {
    return image == other.image && o0 == other.o0 && o1 == other.o1;
  }
};

struct TileRuns {
  TileRun run[winograd::Groups::kWide];
  int count = 0;

  // Tiles [begin, begin + tiles) of all images.
  LAMINA_INLINE TileRuns(const winograd::Tiles& all, int64_t begin, int64_t tiles) {
    int64_t column = begin % all.tiles_w, rest = begin / all.tiles_w;
    int64_t b = rest % all.phases_w, row = rest / all.phases_w;
    int64_t a = row / all.tiles_h, image = a / all.phases_h;
    row %= all.tiles_h, a %= all.phases_h;
    for (int64_t done = 0; done < tiles;) {
      const int64_t some = min_of(all.tiles_w - column, tiles - done);
      run[count++] = {image / all.depth,
                      image % all.depth,
                      a + row * all.rows_h,
                      b + column * all.columns_w,
                      done,
                      some};
      done += some, column = 0;
      if (++b < all.phases_w) continue;
      b = 0;
      if (++row < all.tiles_h) continue;
      row = 0;
      if (++a == all.phases_h) a = 0, ++image;
    }
  }
};

// The planes of a channel that the tiles of a run lie in, and where filters begin there.
template <class T>
struct Planes {
  const T* channel;            // in image 0
  int64_t image_step, plane;   // elements
  int64_t first, step, depth;  // output o0 meets plane first + o0 * step of `depth`
  int64_t down = 0, right = 0;

  LAMINA_INLINE bool holds(const TileRun& run) const {
    const int64_t at = first + run.o0 * step;
    return at >= 0 && at < depth;
  }
  LAMINA_INLINE const T* of(const TileRun& run) const {
    return channel + run.image * image_step + (first + run.o0 * step) * plane;
  }
};
using winograd::PlaneShape;
// Of input c of the convolution of planes.
template <class T>
LAMINA_INLINE Planes<T> input_planes(const PlaneShape& s, const T* x, int64_t c) {
  const int64_t plane = s.in_size(), volume = s.depth_in * plane;
  const int64_t part = c % s.parts, tap = c / s.parts % s.depth_taps;
  const int64_t each = s.parts * s.depth_taps;  // inputs of a channel
  return {x + c / each * volume,
          s.c / each * volume,
          plane,
          tap * s.depth_dilation - s.depth_pad,
          s.depth_stride,
          s.depth_in,
          part * s.part_down,
          part * s.part_right};
}
template <class T>
LAMINA_INLINE Planes<T> output_planes(const PlaneShape& s, const T* y, int64_t k) {
  const int64_t plane = s.out_size(), volume = s.depth_out * plane;
  return {y + k * volume, s.k * volume, plane, 0, 1, s.depth_out};
}

// ---- transforms

inline constexpr int64_t kFiltersAhead = 8;  // inputs by which scattered filters are prefetched

// u[e][input][kRows] of outputs [k, k + rows) of group g, elements u_step apart; inputs and outputs
// are those of the product.
template <class Tile, class T>
static void transform_filters(const PlaneShape& s, const Filters<T>& filters, int64_t g, int64_t k,
                              int64_t rows, T* u, int64_t u_step) {
  constexpr int kRows = GemmTile<T>::kRows, kTaps = Tile::kTaps;
  const int64_t inputs = s.c_per_group(), size = inputs * kRows;
  const T* first = filters.output(s, g * s.k_per_group() + k);
  alignas(64) T taps[kTaps][kLanes<T>] = {};
  for (int64_t at = 0; at < size; at += kLanes<T>) {
    if (filters.turned)  // the outputs' filters lie together, those of the next input far away
      for (int64_t c = at / kRows; c < (at + kLanes<T>) / kRows; ++c)
        prefetch_line(first + filters.input(min_of(c + kFiltersAhead, inputs - 1)), s.taps * rows);
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      const int64_t c = (at + lane) / kRows, row = (at + lane) % kRows;
      if (c >= inputs || row >= rows) continue;
      const T* filter = first + row * filters.lane + filters.input(c);
      if constexpr (Tile::kOneAxis) {  // of a part
        const int64_t first_tap = c % s.parts * kTaps;
        for (int r = 0; r < kTaps; ++r) {
          const int64_t tap = first_tap + (filters.turned ? kTaps - 1 - r : r);
          const int64_t at = filters.turned ? s.taps - 1 - tap : tap;
          taps[r][lane] = tap < s.taps ? filter[at] : T(0);
        }
        continue;
      }
#pragma GCC unroll 25
      for (int r = 0; r < kTaps; ++r) taps[r][lane] = filter[r];
    }
    Vec<T> half_done[Tile::kInRows][Tile::kFilterColumns];
    for (int j = 0; j < Tile::kFilterColumns; ++j) {
      Vec<T> g[Tile::kFilterRows], line[Tile::kInRows];
      for (int i = 0; i < Tile::kFilterRows; ++i) {
        const int r = i * Tile::kFilterColumns + j;
        g[i] = load(taps[filters.turned ? kTaps - 1 - r : r]);
      }
      winograd::filter_line(g, line);
      for (int i = 0; i < Tile::kInRows; ++i) half_done[i][j] = line[i];
    }
    for (int i = 0; i < Tile::kInRows; ++i) {
      Vec<T> line[Tile::kInColumns];
      winograd::filter_line(half_done[i], line);
      for (int j = 0; j < Tile::kInColumns; ++j)
        store_first(u + at + (i * Tile::kInColumns + j) * u_step, size - at, line[j]);
    }
  }
}

// Asks for what fill() will read of a plane [height][width]: its rows are too short for the
// hardware to see them come. Rows are `step` apart.
template <class T>
LAMINA_INLINE void prefetch_block(const T* plane, int64_t height, int64_t width, int64_t row,
                                  int64_t rows, int64_t step, int64_t column, int64_t columns) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t r = row; r < min_of(row + rows * step, height); r += step)
    if (r >= 0)
      for (int64_t at = max_of<int64_t>(column, 0); at < min_of(column + columns + kLine, width);
           at += kLine)
        __builtin_prefetch(plane + r * width + at);
}

// Calls body with the column step of a convolution, a constant where it is 1.
template <class Body>
LAMINA_INLINE void with_column_step(const ops::ConvShape& s, const Body& body) {
  if (s.dilation[2] == 1)
    body(std::integral_constant<int64_t, 1>{});
  else
    body(s.dilation[2]);
}

// Tile rows of one channel after the vertical transform: columns[0] holds the first kOutColumns
// columns of every tile one after the other, columns[1] the next ones, where the next tile begins.
template <class Tile, class T>
struct TileRows {
  static constexpr int kLength = winograd::Groups::kWide * Tile::kOutColumns + 2 * kLanes<T>;
  static constexpr int kParts = (Tile::kInColumns + Tile::kOutColumns - 1) / Tile::kOutColumns;
  alignas(64) T columns[kParts][Tile::kInRows][kLength] = {};

  LAMINA_INLINE void fill(const PlaneShape& s, const TileRuns& runs, const Planes<T>& planes) {
    with_column_step(s, [&](auto step) { fill(s, step, runs, planes); });
  }

 private:
  template <class Step>
  LAMINA_INLINE void fill(const PlaneShape& s, Step step, const TileRuns& runs,
                          const Planes<T>& planes) {
    constexpr int kStep = Tile::kOutColumns;
    const int64_t down = s.dilation[1];
    for (int index = 0; index < runs.count; ++index) {
      const TileRun& run = runs.run[index];
      const int64_t i1 = run.o1 - s.pad[1] + planes.down, i2 = run.o2 - s.pad[2] + planes.right;
      const int64_t height = planes.holds(run) ? s.in[1] : 0;  // rows to read
      const T* source = planes.of(run) + i1 * s.in[2] + i2;
      const int64_t begin = i2 < 0 ? ceil_div(-i2, step) : 0;  // columns inside the image
      const int64_t stop = i2 < s.in[2] ? ceil_div(s.in[2] - i2, step) : 0;
      for (int64_t at = 0; at < run.count * kStep + Tile::kFilterColumns - 1; at += kLanes<T>) {
        const int64_t first = begin - at, end = stop - at;
        Vec<T> d[Tile::kInRows], v[Tile::kInRows];
        if (step == 1 && first <= 0 && end >= kLanes<T> && i1 >= 0 &&
            i1 + (Tile::kInRows - 1) * down < height)
          for (int r = 0; r < Tile::kInRows; ++r) d[r] = load(source + r * down * s.in[2] + at);
        else
          for (int r = 0; r < Tile::kInRows; ++r)
            d[r] = i1 + r * down >= 0 && i1 + r * down < height
                       ? load_spaced(source + r * down * s.in[2] + at * step, step, first, end)
                       : Vec<T>{};
        winograd::input_line(d, v);
        const int64_t place = run.first * kStep + at;
        for (int part = 0; part < kParts; ++part) {
          const int left = part * kStep;
          for (int r = 0; r < Tile::kInRows; ++r)
            if (at < left)
              store_lanes(columns[part][r] + place - left, left - at, kLanes<T>, v[r]);
            else
              store(columns[part][r] + place - left, v[r]);
        }
      }
    }
  }

 public:
  LAMINA_INLINE static void prefetch(const PlaneShape& s, const TileRuns& runs,
                                     const Planes<T>& planes) {
    for (int index = 0; index < runs.count; ++index) {
      const TileRun& run = runs.run[index];
      if (!planes.holds(run)) continue;
      if (index > 0 && run.same_rows(runs.run[index - 1])) continue;  // of another phase
      prefetch_block(planes.of(run), s.in[1], s.in[2], run.o1 - s.pad[1] + planes.down,
                     Tile::kInRows, s.dilation[1], run.o2 - s.pad[2] + planes.right,
                     (run.count * Tile::kOutColumns + Tile::kFilterColumns - 1) * s.dilation[2]);
    }
  }

  // v[e] of the tiles [tile, tile + kLanes).
  LAMINA_INLINE void across(int64_t tile, Vec<T> (&v)[Tile::kElements]) const {
    constexpr int kStep = Tile::kOutColumns;
    for (int r = 0; r < Tile::kInRows; ++r) {
      Vec<T> d[Tile::kInColumns], line[Tile::kInColumns];
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part) {
        Vec<T> row[kStep], split[kStep];
        for (int j = 0; j < kStep; ++j)
          row[j] = load(columns[part][r] + tile * kStep + j * kLanes<T>);
        split_columns<T, kStep>(row, split);
#pragma GCC unroll 8
        for (int j = 0; j < kStep; ++j)
          if (part * kStep + j < Tile::kInColumns) d[part * kStep + j] = split[j];
      }
      winograd::input_line(d, line);
      for (int j = 0; j < Tile::kInColumns; ++j) v[r * Tile::kInColumns + j] = line[j];
    }
  }
};

// Tile rows of one channel of output gradients, zeros beyond the last row and column.
template <class Tile, class T>
struct OutputRows {
  static constexpr int kLength = winograd::Groups::kWide * Tile::kOutColumns + kLanes<T>;
  alignas(64) T rows[Tile::kOutRows][kLength] = {};

  LAMINA_INLINE void fill(const PlaneShape& s, const TileRuns& runs, const Planes<T>& planes) {
    with_column_step(s, [&](auto step) { fill(s, step, runs, planes); });
  }
  template <class Step>
  LAMINA_INLINE void fill(const PlaneShape& s, Step step, const TileRuns& runs,
                          const Planes<T>& planes) {
    constexpr int kStep = Tile::kOutColumns;
    const int64_t down = s.dilation[1];
    for (int index = 0; index < runs.count; ++index) {
      const TileRun& run = runs.run[index];
      const T* source = planes.of(run) + run.o1 * s.out[2] + run.o2;
      const int64_t stop = ceil_div(s.out[2] - run.o2, step);
      for (int64_t at = 0; at < run.count * kStep; at += kLanes<T>)
        for (int r = 0; r < Tile::kOutRows; ++r)
          store(rows[r] + run.first * kStep + at,
                run.o1 + r * down < s.out[1]
                    ? load_spaced(source + r * down * s.out[2] + at * step, step, 0, stop - at)
                    : Vec<T>{});
    }
  }

  LAMINA_INLINE static void prefetch(const PlaneShape& s, const TileRuns& runs,
                                     const Planes<T>& planes) {
    for (int index = 0; index < runs.count; ++index) {
      const TileRun& run = runs.run[index];
      if (index > 0 && run.same_rows(runs.run[index - 1])) continue;  // of another phase
      prefetch_block(planes.of(run), s.out[1], s.out[2], run.o1, Tile::kOutRows, s.dilation[1],
                     run.o2, run.count * Tile::kOutColumns * s.dilation[2]);
    }
  }

  // A dy A^T of the tiles [tile, tile + kLanes).
  LAMINA_INLINE void across(int64_t tile, Vec<T> (&z)[Tile::kElements]) const {
    constexpr int kStep = Tile::kOutColumns;
    Vec<T> dy[Tile::kOutRows][kStep], half_done[Tile::kInRows][kStep];
    for (int r = 0; r < Tile::kOutRows; ++r) {
      Vec<T> row[kStep];
      for (int j = 0; j < kStep; ++j) row[j] = load(rows[r] + tile * kStep + j * kLanes<T>);
      split_columns<T, kStep>(row, dy[r]);
    }
    for (int j = 0; j < kStep; ++j) {
      Vec<T> column[Tile::kOutRows], line[Tile::kInRows];
      for (int r = 0; r < Tile::kOutRows; ++r) column[r] = dy[r][j];
      winograd::output_gradient_line(column, line);
      for (int r = 0; r < Tile::kInRows; ++r) half_done[r][j] = line[r];
    }
    for (int r = 0; r < Tile::kInRows; ++r) {
      Vec<T> line[Tile::kInColumns];
      winograd::output_gradient_line(half_done[r], line);
      for (int j = 0; j < Tile::kInColumns; ++j) z[r * Tile::kInColumns + j] = line[j];
    }
  }
};

LAMINA_CPU_NAMESPACE_END
